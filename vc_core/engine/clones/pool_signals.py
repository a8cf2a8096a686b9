"""What the keeper of a pool waits for: words of other processes, and the removal of its folder."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

log = logging.getLogger(__name__)

FIFO = "poke"
"""Its file name in the folder of the pool. It stays there when the keeper ends."""
QUIT = b"q"
"""The word that ends the keeper. Any other makes it look at its pool."""
_MOST_BYTES = 1 << 16  # what a FIFO holds: pipe(7)


def open_fifo(path: Path) -> int:
    """Makes the FIFO if it is missing; returns a descriptor. As long as one is open, words wait."""
    with contextlib.suppress(FileExistsError):
        os.mkfifo(path, 0o600)
    return os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)


def drain(handle: int) -> None:
    """Drops the words that wait."""
    with contextlib.suppress(BlockingIOError):
        os.read(handle, _MOST_BYTES)


@contextmanager
def removals(folder: Path) -> Iterator[int]:
    """Provides a descriptor that is readable when the folder, or something in it, is removed."""
    from asyncinotify import Inotify, Mask  # of the keeper alone

    with Inotify() as changes:
        changes.add_watch(folder, Mask.DELETE | Mask.MOVED_FROM | Mask.DELETE_SELF | Mask.MOVE_SELF)
        os.set_blocking(changes.fd, False)
        yield changes.fd


async def goes_on(handle: int, fifo: Path, removed: int) -> bool:
    """Waits for a word; returns whether to go on: not after QUIT or the removal of the FIFO.

    Args:
        handle: the open FIFO.
        fifo: its path.
        removed: what `removals` of the FIFO's folder provides.
    """
    loop = asyncio.get_running_loop()
    seen = asyncio.Event()
    for descriptor in (handle, removed):
        loop.add_reader(descriptor, seen.set)
    try:
        while _is_same(handle, fifo):
            await seen.wait()
            seen.clear()
            with contextlib.suppress(BlockingIOError):
                os.read(removed, 1 << 16)  # the paths tell what is gone
            with contextlib.suppress(BlockingIOError):
                return QUIT not in os.read(handle, _MOST_BYTES)
        log.warning("the pool ends: its folder %s was removed", fifo.parent)
        return False
    finally:
        for descriptor in (handle, removed):
            loop.remove_reader(descriptor)


def _is_same(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), path.lstat())
    except FileNotFoundError:
        return False
