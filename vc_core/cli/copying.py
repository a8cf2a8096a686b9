"""vc cp: files between the host and a container."""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from vc_core.cli.render import size
from vc_core.cli.settings import Settings, run_async
from vc_core.spec.errors import InvalidRequest

_IN_POD = re.compile(r"([A-Za-z0-9][A-Za-z0-9_.-]*):(.*)", re.DOTALL)
_CHUNK = 256 << 10
_STREAM = "-"


@click.command("cp")
@click.option("--container", "-c", "container_id", default="", metavar="ID", help="When the pod has more than one.")
@click.option("--archive", "-a", "keep_owner", is_flag=True, help="Keep owners; they become root, or you, otherwise.")
@click.argument("source", metavar="SOURCE")
@click.argument("target", metavar="TARGET")
@click.pass_obj
def cp(settings: Settings, source: str, target: str, container_id: str, keep_owner: bool) -> None:
    r"""Copy a file or folder: into TARGET where that is a folder, else as TARGET.

    \b
    vc cp notes.txt web:/etc/         one of both is POD:PATH; ./a:b is a file of this host
    vc cp web:/var/log ./logs
    vc cp ./site/. web:/srv           what is in a folder
    tar c . | vc cp - web:/srv        a tar archive is read, or written by 'vc cp web:/srv -'

    Links, holes, modes and times stay what they are. Nothing that a guest sends is written outside of TARGET.
    """
    here, there = _IN_POD.fullmatch(source), _IN_POD.fullmatch(target)
    if bool(here) == bool(there):
        raise InvalidRequest("one of SOURCE and TARGET must be POD:PATH, the other a path of this host or -")
    run_async(_copy(settings, source, target, container_id, keep_owner))


async def _copy(settings: Settings, source: str, target: str, container_id: str, keep_owner: bool) -> None:
    inside = _IN_POD.fullmatch(target) or _IN_POD.fullmatch(source)
    if inside is None:
        raise InvalidRequest(f"{target} is not POD:PATH")
    async with settings.runtime() as runtime:
        pod = await runtime.get(inside[1])
        files = pod.container(container_id).files if container_id else pod.files
        with _counting() as progress:
            if _IN_POD.fullmatch(target):
                if source == _STREAM:
                    await files.unarchive(inside[2], _input())
                else:
                    is_content = source.endswith(("/.", "/./")) or source == "."
                    await files.copy_in(Path(source), inside[2], is_content, keep_owner, progress)
            elif target == _STREAM:
                async for chunk in files.archive(inside[2]):
                    await asyncio.to_thread(sys.stdout.buffer.write, chunk)
                sys.stdout.buffer.flush()
            else:
                await files.copy_out(inside[2], Path(target), keep_owner, progress)


async def _input() -> AsyncGenerator[bytes, None]:
    while chunk := await asyncio.to_thread(sys.stdin.buffer.read, _CHUNK):
        yield chunk


@contextmanager
def _counting() -> Iterator[Callable[[int], None] | None]:
    """On a terminal, how much has been copied."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console

    with Console(stderr=True).status("copying") as status:
        yield lambda count: status.update(f"copying: {size(count)}")
