"""vc cp: files between the host and a container."""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from vc_core.cli.execute import chosen
from vc_core.cli.exits import writing
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
    """Copy a file or folder: into TARGET where that is a folder, else as TARGET.

    \b
    vc cp notes.txt web:/etc/     one is POD:PATH; ./a:b is a file of this host
    vc cp web:/var/log ./logs
    vc cp ./site/. web:/srv       what is in a folder
    tar c . | vc cp - web:/srv    reads a tar archive; '… web:/srv -' writes one

    Links, holes, modes and times stay what they are. Nothing that a guest sends is written outside of TARGET.
    """
    here, there = _IN_POD.fullmatch(source), _IN_POD.fullmatch(target)
    if there is not None and here is None:
        run_async(_copy_in(settings, source, there[1], container_id, there[2], keep_owner))
    elif here is not None and there is None:
        with writing():
            run_async(_copy_out(settings, here[1], container_id, here[2], target, keep_owner))
    else:
        raise InvalidRequest("one of SOURCE and TARGET must be POD:PATH, the other a path of this host or -")


async def _copy_in(
    settings: Settings, source: str, pod_id: str, container_id: str, path: str, keep_owner: bool
) -> None:
    async with settings.runtime() as runtime:
        files = (await chosen(await runtime.get(pod_id), container_id)).files
        if source == _STREAM:
            await files.unarchive(path, _input())
            return
        is_content = source.endswith(("/.", "/./")) or source == "."
        with _counting() as progress:
            await files.copy_in(Path(source), path, is_content, keep_owner, progress)


async def _copy_out(
    settings: Settings, pod_id: str, container_id: str, path: str, target: str, keep_owner: bool
) -> None:
    async with settings.runtime() as runtime:
        files = (await chosen(await runtime.get(pod_id), container_id)).files
        if target == _STREAM:
            async for chunk in files.archive(path):
                await asyncio.to_thread(sys.stdout.buffer.write, chunk)
            sys.stdout.buffer.flush()
            return
        with _counting() as progress:
            await files.copy_out(path, Path(target), keep_owner, progress)


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
