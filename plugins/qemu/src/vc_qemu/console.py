"""The guest's console: a file that QEMU appends to, the kernel bounds, and every look makes room
in.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from vc_qemu import bounded_file
from vc_qemu.command_line import CONSOLE

if TYPE_CHECKING:
    from vc_qemu.monitor import Monitor

LOOK_S = 2.0
"""How long somebody who only looks waits for the monitor."""


def make(folder: Path, max_bytes: int) -> None:
    """Makes an empty one for a machine whose files lie in a folder; that of the boot
    before goes.
    """
    (folder / CONSOLE).unlink(missing_ok=True)
    bounded_file.make(folder / CONSOLE, _room(max_bytes))


def tail(folder: Path, max_bytes: int, size: int) -> bytes:
    """The last bytes of it; none when it is not there."""
    return bounded_file.tail(folder / CONSOLE, size, _room(max_bytes))


def is_over(folder: Path, max_bytes: int) -> bool:
    """Whether it is to be trimmed."""
    return bounded_file.length(folder / CONSOLE, _room(max_bytes)) > max_bytes


async def trim(folder: Path, max_bytes: int, monitor: Monitor) -> None:
    """Makes room in it when it has more than `max_bytes`.

    Whoever has the machine's monitor is alone with it.
    """
    if is_over(folder, max_bytes):
        bounded_file.trim(folder / CONSOLE, max_bytes // 2, _room(max_bytes))
        await monitor.reopen(CONSOLE, folder / CONSOLE)


def _room(max_bytes: int) -> int:
    """Twice as much as is kept: a guest that writes no more than that between two looks loses
    nothing.
    """
    return 2 * max_bytes
