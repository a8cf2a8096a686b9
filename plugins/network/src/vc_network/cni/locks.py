"""Locks of what several processes change."""

from __future__ import annotations

from pathlib import Path

from vc_core.driver_kit import FileLock, LockTimeout, lock_file
from vc_network.errors import NetworkFailure

LIMIT_S = 60.0
"""Longest wait for another process that works on networks."""


async def locked(path: Path, exclusive: bool = True, limit_s: float = LIMIT_S) -> FileLock:
    """Returns the lock of a file, for `async with`.

    Args:
        path: of the file, which is created, with its folder, when it is missing.
        exclusive: whether nobody else has it meanwhile; otherwise nobody else has it exclusively.
        limit_s: longest wait in seconds.

    Raises:
        NetworkFailure: another process has it for too long.
    """
    try:
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        return await lock_file(path, exclusive=exclusive, timeout_s=limit_s)
    except LockTimeout as error:
        raise NetworkFailure(f"another process works on networks ({path}): {error}") from error
