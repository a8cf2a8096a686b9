"""The guest's console: a file of bounded size to which QEMU appends, trimmed when it is read."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from vc_qemu import bounded_file
from vc_qemu.command_line import CONSOLE

if TYPE_CHECKING:
    from vc_qemu.monitor import Monitor

LOOK_S = 2.0
"""Seconds that a read-only client waits for the monitor."""


def make(folder: Path, max_bytes: int) -> None:
    """Creates an empty console file in a machine's folder; removes that of the previous boot."""
    (folder / CONSOLE).unlink(missing_ok=True)
    bounded_file.make(folder / CONSOLE, _room(max_bytes))


def tail(folder: Path, max_bytes: int, size: int) -> bytes:
    """Returns the last bytes of the console; none when the file is missing."""
    return bounded_file.tail(folder / CONSOLE, size, _room(max_bytes))


def is_over(folder: Path, max_bytes: int) -> bool:
    """Returns whether the file must be trimmed."""
    return bounded_file.length(folder / CONSOLE, _room(max_bytes)) > max_bytes


async def trim(folder: Path, max_bytes: int, monitor: Monitor) -> None:
    """Removes the older part of the text when there are more than `max_bytes`.

    The monitor's lock keeps other processes from trimming at the same time.
    """
    if is_over(folder, max_bytes):
        bounded_file.trim(folder / CONSOLE, max_bytes // 2, _room(max_bytes))
        await monitor.reopen(CONSOLE, folder / CONSOLE)


def _room(max_bytes: int) -> int:
    """Returns twice the kept size, so that a guest can write as much again between two reads."""
    return 2 * max_bytes
