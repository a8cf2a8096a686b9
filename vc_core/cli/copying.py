"""vc cp: copy files between the host and a container."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from contextlib import aclosing, contextmanager

import click

from vc_core.cli.container_options import container_id_option
from vc_core.cli.execute import chosen
from vc_core.cli.exit_codes import writing
from vc_core.cli.global_options import Settings, run_async
from vc_core.cli.render import size
from vc_core.cli.stdio import input_chunks, write_out
from vc_core.spec.errors import InvalidRequest

_IN_POD = re.compile(r"([A-Za-z0-9][A-Za-z0-9_.-]*):(.*)", re.DOTALL)
_STREAM = "-"


@click.command("cp")
@container_id_option
@click.option(
    "--archive",
    "-a",
    "keep_owner",
    is_flag=True,
    help="Keep owners; by default files belong to root, or to you.",
)
@click.argument("source", metavar="SOURCE")
@click.argument("target", metavar="TARGET")
@click.pass_obj
def cp(settings: Settings, source: str, target: str, container_id: str, keep_owner: bool) -> None:
    """Copy a file or directory into TARGET if that is a directory, else to TARGET.

    Either SOURCE or TARGET is POD:PATH; ./a:b is a file on the host.

    \b
    vc cp notes.txt web:/etc/     copy to a container
    vc cp web:/var/log ./logs     copy from a container
    vc cp ./site/. web:/srv       copy the contents of a directory
    tar c . | vc cp - web:/srv    extract a tar archive; '… web:/srv -' writes one

    A TARGET that ends in / must be a directory. Links, holes, modes and times are kept. Nothing
    is written outside of TARGET, whatever the guest sends.
    """
    here, there = _IN_POD.fullmatch(source), _IN_POD.fullmatch(target)
    if there is not None and here is None:
        run_async(_copy_in(settings, source, there[1], container_id, there[2], keep_owner))
    elif here is not None and there is None:
        with writing():
            run_async(_copy_out(settings, here[1], container_id, here[2], target, keep_owner))
    else:
        raise InvalidRequest(
            "one of SOURCE and TARGET must be POD:PATH, the other a path on this host or -"
        )


async def _copy_in(
    settings: Settings, source: str, pod_id: str, container_id: str, path: str, keep_owner: bool
) -> None:
    async with settings.runtime() as runtime:
        files = (await chosen(await runtime.get(pod_id), container_id)).files
        if source == _STREAM:
            await files.unarchive(f"{_rooted(path).rstrip('/')}/", input_chunks())
            return
        with _counting() as progress:
            await files.copy_in(source, _rooted(path), keep_owner=keep_owner, progress=progress)


async def _copy_out(
    settings: Settings, pod_id: str, container_id: str, path: str, target: str, keep_owner: bool
) -> None:
    async with settings.runtime() as runtime:
        files = (await chosen(await runtime.get(pod_id), container_id)).files
        if target == _STREAM:
            async with aclosing(files.archive(_rooted(path))) as chunks:
                async for chunk in chunks:
                    await write_out(chunk)
            return
        with _counting() as progress:
            await files.copy_out(_rooted(path), target, keep_owner, progress)


def _rooted(path: str) -> str:
    """Make a path in a container absolute: as in Docker, it starts at the root."""
    if not path:
        raise InvalidRequest("the path in the container is empty; give POD:PATH")
    return path if path.startswith("/") else f"/{path}"


@contextmanager
def _counting() -> Iterator[Callable[[int], None] | None]:
    """Show how much has been copied, if stderr is a terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console

    with Console(stderr=True).status("copying") as status:
        yield lambda count: status.update(f"copying: {size(count)}")
