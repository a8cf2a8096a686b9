"""File locks between processes, with a deadline and without polling.

For stores, and for drivers whose machine's control socket serves one client at a time.

flock(2) has no deadline, so each wait is in a thread of its own that is not interrupted: after a
timeout the thread ends when it gets the lock, and releases it at once. A lock file may be deleted
while another process waits for it: the new holder checks that the file still has that name.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import threading
from pathlib import Path

from vc_core.driver_kit.timeouts import timeout_after


class LockTimeout(Exception):
    """The lock was not free in time."""


class FileLock:
    """A lock, held until `release` or the end of an `async with`."""

    def __init__(self, handle: int) -> None:
        self._handle: int | None = handle

    async def release(self) -> None:
        """Releases the lock. May be called twice."""
        handle, self._handle = self._handle, None
        if handle is not None:
            os.close(handle)

    def __del__(self) -> None:
        if self._handle is not None:  # its holder failed before it could release it
            os.close(self._handle)

    async def __aenter__(self) -> None:
        """Does nothing: the lock is held already."""

    async def __aexit__(self, *_: object) -> None:
        await self.release()


async def lock_file(path: Path, exclusive: bool, timeout_s: float | None = None) -> FileLock:
    """Waits for the lock of a file, which is created when it is missing.

    Args:
        path: path of the file, in an existing folder.
        exclusive: whether the lock is exclusive; otherwise it is shared.
        timeout_s: seconds to wait; without limit when None.

    Raises:
        LockTimeout: it was not free within `timeout_s` seconds.
    """
    mode = fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH
    try:
        async with timeout_after(timeout_s):
            while True:
                handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
                await _flock(handle, mode)
                if is_named(handle, path):
                    return FileLock(handle)
                os.close(handle)
    except TimeoutError as error:
        raise LockTimeout(f"not free within {timeout_s:g} s") from error


async def _flock(handle: int, mode: int) -> None:
    """Takes the lock; closes the handle on failure."""
    try:
        fcntl.flock(handle, mode | fcntl.LOCK_NB)
    except BlockingIOError:
        await _flock_in_thread(handle, mode)
    except BaseException:
        os.close(handle)
        raise


async def _flock_in_thread(handle: int, mode: int) -> None:
    loop = asyncio.get_running_loop()
    got: asyncio.Future[None] = loop.create_future()

    def settle() -> None:
        if got.cancelled():
            os.close(handle)
        else:
            got.set_result(None)

    def wait() -> None:
        fcntl.flock(handle, mode)
        try:
            loop.call_soon_threadsafe(settle)
        except RuntimeError:  # the loop ended meanwhile: the lock is not needed any more
            os.close(handle)

    threading.Thread(target=wait, name="vc-lock", daemon=True).start()
    try:
        await got
    except asyncio.CancelledError:
        if not got.cancelled():  # it came at the same moment
            os.close(handle)
        raise


def is_named(handle: int, path: Path) -> bool:
    """Returns whether an open file still has that name."""
    try:
        named = path.stat()
    except FileNotFoundError:
        return False
    held = os.fstat(handle)
    return (named.st_dev, named.st_ino) == (held.st_dev, held.st_ino)
