"""The balloon, by which a guest reports free pages: QEMU returns them to the host.

Only where the memory belongs to the machine alone. When QEMU discards a range of a privately
mapped file, it discards it in the *file*, which other machines use: qemu.git,
softmmu/physmem.c, ram_block_discard_range. Therefore clones have no balloon, and it is removed
while a machine is saved.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from vc_core.spec import GuestDriver
from vc_qemu.command_line import BALLOON, BALLOON_DRIVER, port_address
from vc_qemu.hotplug import Place

if TYPE_CHECKING:
    from vc_qemu.monitor import Monitor


def places(port: int) -> tuple[Place, ...]:
    """Returns the place of the balloon; empty for port -1, which means none."""
    return (
        (Place(BALLOON, GuestDriver.PCI, f"{port_address(port)}/00", port=port),)
        if port >= 0
        else ()
    )


@asynccontextmanager
async def taken_out(
    monitor: Monitor, plugged: tuple[Place, ...], limit_s: float
) -> AsyncIterator[tuple[Place, ...]]:
    """Removes the balloon for the length of a block; yields the places of the other devices.

    Raises:
        HypervisorError: the guest does not release it.
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
