"""Devices plugged into a running machine: folders, disks, host PCI devices, vhost-user."""

from __future__ import annotations

import os
import stat
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from vc_core.driver_kit import first_free
from vc_core.spec import (
    Drive,
    DriveBus,
    GuestDriver,
    HostPci,
    Nic,
    Pluggable,
    Share,
    VhostKind,
    VhostUser,
)
from vc_qemu import nics
from vc_qemu.answers import BlockNode, CharDevice
from vc_qemu.command_line import port_address, slot_fsdev, slot_path
from vc_qemu.errors import QemuError
from vc_qemu.jail.inside import View
from vc_qemu.sockets import connected_socket

if TYPE_CHECKING:
    from vc_qemu.monitor import Monitor

Backend = tuple[str, str]
_SCSI_TARGETS = 256
_REMEDY = "raise hypervisor.qemu.{} for new pods"
_VHOST_DEVICES = {
    VhostKind.NET: "virtio-net-pci",
    VhostKind.BLK: "vhost-user-blk-pci",
    VhostKind.SCSI: "vhost-user-scsi-pci",
}
# The QMP command that removes a backend, and the name of its argument with the id.
_REMOVALS = {
    "block": ("blockdev-del", "node-name"),
    "netdev": ("netdev_del", "id"),
    "chardev": ("chardev-remove", "id"),
    "object": ("object-del", "id"),
}


@dataclass(frozen=True)
class Place:
    """The place of a plugged device.

    Attributes:
        id: id of the device.
        driver: how the guest finds it.
        address: its address for the guest.
        port: number of its root port, -1 for none.
        slot: number of its share slot, -1 for none.
        target: its SCSI target, -1 for none.
        backends: kind and id of its QEMU backends, in the order of their creation.
    """

    id: str
    driver: GuestDriver
    address: str
    port: int = -1
    slot: int = -1
    target: int = -1
    backends: tuple[Backend, ...] = ()


@dataclass(frozen=True)
class Room:
    """The places of a machine for devices: their number, and those in use."""

    view: View
    root_ports: int
    share_slots: int
    taken: tuple[Place, ...]

    def port(self) -> int:
        """Returns a free root port."""
        taken = {place.port for place in self.taken}
        return first_free(taken, self.root_ports, "root ports", _REMEDY.format("root_ports"))

    def slot(self) -> int:
        """Returns a free share slot."""
        taken = {place.slot for place in self.taken}
        return first_free(taken, self.share_slots, "share slots", _REMEDY.format("share_slots"))

    def target(self) -> int:
        """Returns a free SCSI target."""
        taken = {place.target for place in self.taken}
        return first_free(taken, _SCSI_TARGETS, "SCSI targets", "remove disks from this pod")


async def add(monitor: Monitor, room: Room, device: Pluggable) -> Place:
    """Plugs a device into the first free place. On failure nothing of it is left.

    Raises:
        HypervisorError: no place is free, or QEMU refuses; quotes QEMU.
    """
    return await put(monitor, room.view, _place_for(device, room), device)


async def put(monitor: Monitor, view: View, place: Place, device: Pluggable) -> Place:
    """Plugs a device into a given place; returns it with its backends. On failure nothing is left.

    Raises:
        HypervisorError: QEMU refuses; quotes QEMU.
    """
    match device:
        case Share():
            return await _add_folder(monitor, view, place, device)
        case Drive():
            return await _add_disk(monitor, device, place)
        case HostPci():
            view.show_devices()
            where = {"driver": "vfio-pci", "id": place.id, "host": device.address, **_bus(place)}
            await monitor.execute("device_add", where)
            return place
        case VhostUser():
            return await _add_vhost_user(monitor, device, place)
        case Nic():
            return await nics.add(monitor, device, place)


def _place_for(device: Pluggable, room: Room) -> Place:
    match device:
        case Share(tag=tag):
            return Place(
                f"share-{tag}", GuestDriver.NINE_P, tag, port=room.port(), slot=room.slot()
            )
        case Drive(bus=DriveBus.SCSI):
            target = room.target()
            return Place(device.id, GuestDriver.SCSI, f"{target}:0", target=target)
        case Drive() | VhostUser(kind=VhostKind.BLK):
            return _behind_port(device.id, GuestDriver.BLK, room)
        case HostPci() | VhostUser() | Nic():
            return _behind_port(device.id, GuestDriver.PCI, room)


async def sweep(monitor: Monitor, device: Pluggable, limit_s: float) -> None:
    """Removes a device of this name that an interrupted call has left."""
    name = f"share-{device.tag}" if isinstance(device, Share) else device.id
    if name not in await monitor.devices():
        return
    await monitor.unplug(name, limit_s)
    match device:
        case Drive():
            await _remove_backends(monitor, (("block", f"disk-{name}"),))
        case VhostUser():
            net = (("netdev", f"{name}-net"),) if device.kind is VhostKind.NET else ()
            await _remove_backends(monitor, (("chardev", f"{name}-link"), *net))
        case Nic():
            await _remove_backends(monitor, (("netdev", nics.backend_of(name)),))


async def remove(monitor: Monitor, view: View, place: Place, limit_s: float) -> None:
    """Unplugs a device; returns when the guest has released it. One that is not there is no error.

    Raises:
        HypervisorError: the guest keeps it; it is still plugged.
    """
    await monitor.unplug(place.id, limit_s)
    if place.slot >= 0:
        view.hide(slot_path(view.run_dir, place.slot))
    await _remove_backends(monitor, place.backends)


async def _add_folder(monitor: Monitor, view: View, place: Place, share: Share) -> Place:
    """Plugs a 9p device.

    QEMU opens a slot's folder when its device is added, so the folder is put there just before.
    """
    point = slot_path(view.run_dir, place.slot)
    view.show(share.path, point, share.read_only)
    try:
        device = {"driver": "virtio-9p-pci", "id": place.id, "mount_tag": share.tag, **_bus(place)}
        await monitor.execute(
            "device_add", {**device, "fsdev": slot_fsdev(place.slot, share.read_only)}
        )
    except BaseException:
        view.hide(point)
        raise
    return place


async def _add_disk(monitor: Monitor, drive: Drive, place: Place) -> Place:
    where: dict[str, object] = {"driver": "virtio-blk-pci", **_bus(place)}
    if place.driver is GuestDriver.SCSI:
        where = {"driver": "scsi-hd", "bus": "scsi0.0", "scsi-id": place.target, "lun": 0}
    node = f"disk-{drive.id}"
    with _opened(drive) as handle:
        name, is_device = await monitor.lend(handle), stat.S_ISBLK(os.fstat(handle).st_mode)
    file = {"driver": "host_device" if is_device else "file", "filename": name}
    backend = {"driver": "raw", "node-name": node, "read-only": drive.read_only, "file": file}
    async with _backends(monitor) as added:
        await monitor.execute("blockdev-add", backend)
        added.append(("block", node))
        await monitor.execute("device_add", {"id": drive.id, "drive": node, **where})
    return replace(place, backends=tuple(added))


@contextmanager
def _opened(drive: Drive) -> Iterator[int]:
    try:
        flags = (os.O_RDONLY if drive.read_only else os.O_RDWR) | os.O_CLOEXEC
        handle = os.open(drive.path, flags)
    except OSError as error:
        raise QemuError(f"the disk {drive.path} cannot be opened: {error.strerror}") from error
    try:
        yield handle
    finally:
        os.close(handle)


async def _add_vhost_user(monitor: Monitor, device: VhostUser, place: Place) -> Place:
    link, net = f"{device.id}-link", f"{device.id}-net"
    with connected_socket(device.socket) as backend:
        await monitor.give(link, backend.fileno())
    address = {"type": "fd", "data": {"str": link}}
    socket = {"type": "socket", "data": {"addr": address, "server": False}}
    front: dict[str, object] = {
        "driver": _VHOST_DEVICES[device.kind],
        "id": place.id,
        **_bus(place),
    }
    async with _backends(monitor) as added:
        await monitor.execute("chardev-add", {"id": link, "backend": socket})
        added.append(("chardev", link))
        if device.kind is VhostKind.NET:
            await monitor.execute("netdev_add", {"type": "vhost-user", "id": net, "chardev": link})
            added.append(("netdev", net))
            front |= {"netdev": net, "mac": device.mac or _random_mac()}
        else:
            front["chardev"] = link
        await monitor.execute("device_add", front)
    return replace(place, backends=tuple(added))


def _random_mac() -> str:
    """Returns a random MAC address, locally administered and unicast (IEEE 802, section 8.4).

    QEMU's default address is the same in every machine.
    """
    first, *rest = os.urandom(6)
    return ":".join(f"{byte:02x}" for byte in (first & 0xFC | 0x02, *rest))


@asynccontextmanager
async def _backends(monitor: Monitor) -> AsyncIterator[list[Backend]]:
    """Removes the backends on the yielded list again when the block fails."""
    added: list[Backend] = []
    try:
        yield added
    except BaseException:
        await _remove_backends(monitor, tuple(added))
        raise


async def _remove_backends(monitor: Monitor, backends: tuple[Backend, ...]) -> None:
    for kind, name in reversed(backends):
        if kind == "block" and name not in {
            node.node_name for node in await monitor.ask("query-named-block-nodes", list[BlockNode])
        }:
            continue  # removed by a call that was interrupted afterwards
        if kind == "chardev" and name not in {
            item.label for item in await monitor.ask("query-chardev", list[CharDevice])
        }:
            continue
        command, argument = _REMOVALS[kind]
        await monitor.execute(command, {argument: name})


def _behind_port(name: str, driver: GuestDriver, room: Room) -> Place:
    port = room.port()
    return Place(name, driver, f"{port_address(port)}/00", port=port)


def _bus(place: Place) -> dict[str, object]:
    return {"bus": f"rp{place.port}"}
