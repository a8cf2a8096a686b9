"""Devices that come and go in a running machine: folders in slots, disks on the SCSI controller."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vc_qemu.command_line import slot_fsdev, slot_path
from vc_qemu.errors import QemuError

if TYPE_CHECKING:
    from vc_qemu.monitor import Monitor


@dataclass(frozen=True)
class Place:
    """What a plugged device occupies.

    Attributes:
        id: of the device.
        driver: how the guest looks for it.
        address: what it looks for.
        port: number of its root port, -1 for none.
        slot: number of its share slot, -1 for none.
        target: its SCSI target, -1 for none.
    """

    id: str
    driver: str
    address: str
    port: int = -1
    slot: int = -1
    target: int = -1


def free(taken: set[int], count: int, what: str) -> int:
    """The first free number.

    Raises:
        QemuError: all are taken; names the option that gives more.
    """
    for number in range(count):
        if number not in taken:
            return number
    raise QemuError(f"all {count} places are taken; raise hypervisor.qemu.{what} for new pods")


async def add_folder(
    monitor: Monitor, run_dir: Path, tag: str, path: Path, read_only: bool, slot: int, port: int
) -> Place:
    """Plugs a 9p device. QEMU opens a slot's folder when its device is made, so the folder is put there just before."""
    link = slot_path(run_dir, slot)
    link.parent.mkdir(mode=0o700, exist_ok=True)
    link.unlink(missing_ok=True)
    link.symlink_to(path)
    try:
        device = {"driver": "virtio-9p-pci", "id": f"share-{tag}", "bus": f"rp{port}"}
        await monitor.execute("device_add", {**device, "fsdev": slot_fsdev(slot, read_only), "mount_tag": tag})
    except BaseException:
        link.unlink()
        raise
    return Place(f"share-{tag}", "9p", tag, port=port, slot=slot)


async def add_disk(monitor: Monitor, name: str, path: Path, read_only: bool, target: int) -> Place:
    """Plugs a SCSI disk; the guest finds it by its target."""
    driver = "host_device" if path.is_block_device() else "file"
    node = f"disk-{name}"
    file = {"driver": driver, "filename": str(path)}
    await monitor.execute("blockdev-add", {"driver": "raw", "node-name": node, "read-only": read_only, "file": file})
    try:
        place = {"bus": "scsi0.0", "scsi-id": target, "lun": 0}
        await monitor.execute("device_add", {"driver": "scsi-hd", "id": name, "drive": node, **place})
    except BaseException:
        await monitor.execute("blockdev-del", {"node-name": node})
        raise
    return Place(name, "scsi", f"{target}:0", target=target)


async def remove(monitor: Monitor, run_dir: Path, place: Place) -> None:
    """Unplugs a device and waits until the guest has let it go. One that is not there is no error."""
    await monitor.unplug(place.id)
    if place.slot >= 0:
        slot_path(run_dir, place.slot).unlink(missing_ok=True)
    if place.target >= 0:
        nodes = {node["node-name"] for node in await monitor.execute("query-named-block-nodes")}
        if f"disk-{place.id}" in nodes:
            await monitor.execute("blockdev-del", {"node-name": f"disk-{place.id}"})
