"""Memory that the guest has freed goes back to the host: a balloon by which the guest reports free pages.

Only where memory is the machine's alone. What QEMU discards of a file that it has mapped privately, it discards in the
*file*, from which others go on: qemu.git, softmmu/physmem.c, ram_block_discard_range. So clones have none, and a
machine does without while it is saved.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from vc_qemu.command_line import BALLOON, BALLOON_DRIVER, port_address
from vc_qemu.hotplug import Place

if TYPE_CHECKING:
    from vc_qemu.monitor import Monitor


def places(port: int) -> tuple[Place, ...]:
    """What it occupies; nothing when there is none (-1)."""
    return (Place(BALLOON, "pci", f"{port_address(port)}/00", port=port),) if port >= 0 else ()


@asynccontextmanager
async def taken_out(
    monitor: Monitor, plugged: tuple[Place, ...], limit_s: float
) -> AsyncIterator[tuple[Place, ...]]:
    """For the length of a block the machine has none; gives what else is plugged.

    Raises:
        QemuError: the guest does not let it go.
    """
    others = tuple(place for place in plugged if place.id != BALLOON)
    if others == plugged:
        yield plugged
        return
    (place,) = (place for place in plugged if place.id == BALLOON)
    await monitor.unplug(BALLOON, limit_s)
    try:
        yield others
    finally:
        device = {
            "driver": BALLOON_DRIVER,
            "id": BALLOON,
            "bus": f"rp{place.port}",
            "free-page-reporting": True,
        }
        await monitor.execute("device_add", device)
