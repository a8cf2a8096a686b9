"""Locks of what several processes change."""

from __future__ import annotations

from pathlib import Path

from vc_core.driver_kit import FileLock, LockTimeout, lock_file
from vc_network.errors import NetworkFailure

_LIMIT_S = 60.0


async def locked(path: Path) -> FileLock:
    """Returns the lock of a file, for `async with`.

    Raises:
        NetworkFailure: another process has it for too long.
    """
    try:
        return await lock_file(path, exclusive=True, timeout_s=_LIMIT_S)
    except LockTimeout as error:
        raise NetworkFailure(f"another process works on networks ({path}): {error}") from error
