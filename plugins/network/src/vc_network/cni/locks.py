"""Locks of what several processes change."""

from __future__ import annotations

from pathlib import Path

from vc_core.driver_kit import FileLock, LockTimeout, lock_file
from vc_network.errors import NetworkFailure

_LIMIT_S = 60.0


async def locked(path: Path, exclusive: bool = True) -> FileLock:
    """Returns the lock of a file, for `async with`.

    Args:
        path: of the file, which is created, with its folder, when it is missing.
        exclusive: whether nobody else has it meanwhile; otherwise nobody else has it exclusively.

    Raises:
        NetworkFailure: another process has it for too long.
    """
    try:
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        return await lock_file(path, exclusive=exclusive, timeout_s=_LIMIT_S)
    except LockTimeout as error:
        raise NetworkFailure(f"another process works on networks ({path}): {error}") from error
