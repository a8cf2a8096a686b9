"""Network interfaces on taps of the host, passed as descriptors: QEMU itself opens nothing."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from vc_core.spec import Nic

if TYPE_CHECKING:
    from vc_qemu.hotplug import Place
    from vc_qemu.monitor import Monitor


def backend_of(nic_id: str) -> str:
    """Returns the name of the netdev behind an interface."""
    return f"{nic_id}-net"


async def add(monitor: Monitor, nic: Nic, place: Place) -> Place:
    """Plugs an interface into its place. On failure nothing of it is left.

    QEMU closes the descriptor with its netdev.

    Raises:
        HypervisorError: QEMU refuses; quotes QEMU.
    """
    backend, handle = backend_of(nic.id), f"{nic.id}-tap"
    await monitor.give(handle, nic.descriptor)
    try:
        await monitor.execute(
            "netdev_add", {"type": "tap", "id": backend, "fd": handle, "vhost": False}
        )
    except BaseException:
        await monitor.execute("closefd", {"fdname": handle})
        raise
    try:
        # Without a ROM: no guest boots from the network.
        front: dict[str, object] = {
            "driver": "virtio-net-pci",
            "netdev": backend,
            "mac": nic.mac,
            "romfile": "",
        }
        await monitor.execute("device_add", {**front, "id": place.id, "bus": f"rp{place.port}"})
    except BaseException:
        await monitor.execute("netdev_del", {"id": backend})
        raise
    return replace(place, backends=(("netdev", backend),))
