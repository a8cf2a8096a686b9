"""The devices that were plugged into a machine when it was saved.

A machine that starts from the saved one must have the same devices at the same places before QEMU
reads the state: qemu.git, docs/devel/migration, "device ordering".
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from vc_core.spec import Drive, GuestDriver, Nic, Share
from vc_qemu.answers import MemoryDevice, QomItem, VcpuSlot
from vc_qemu.command_line import FIRST, SERIAL_BUS
from vc_qemu.errors import QemuError
from vc_qemu.hotplug import Place, put
from vc_qemu.jail.inside import View

if TYPE_CHECKING:
    from vc_qemu.monitor import Monitor

_PERIPHERAL = "/machine/peripheral/"
_PORT = "child<virtserialport>"
_VCPU = r"cpu(-[0-9]{1,6}){3}"
_CHANNEL = rf"({FIRST}|channel-[0-9]{{1,20}}-[0-9]{{1,20}}-[A-Za-z0-9_]{{1,40}})-port"
_UNPLUG_S = 10.0  # a port is released at once: the guest is not asked
Device = Share | Drive | Nic
"""What a machine that starts from a saved one can get back."""


@dataclass(frozen=True)
class Hotplugged:
    """All plugged devices.

    Attributes:
        places: places of folders, disks and network interfaces.
        vcpus: arguments of device_add for each vCPU.
        modules: arguments of device_add for each module of memory.
        memories: name and size in bytes of the memory behind each module.
        ports: name and number of each channel's port. Their clients are the saved machine's.
    """

    places: tuple[Place, ...]
    vcpus: tuple[dict[str, Any], ...] = ()
    modules: tuple[dict[str, Any], ...] = ()
    memories: dict[str, int] = field(default_factory=dict)
    ports: dict[str, int] = field(default_factory=dict)

    @classmethod
    async def look(cls, monitor: Monitor, places: tuple[Place, ...]) -> Self:
        """Returns what is plugged into a running machine.

        Raises:
            QemuError: saving the state of a device is not supported; names the device.
        """
        for place in places:
            kinds = [kind for kind, _ in place.backends]
            is_nic = kinds == ["netdev"]  # on a tap; a vhost-user one has a chardev, too
            if "chardev" in kinds or (place.driver is GuestDriver.PCI and not is_nic):
                raise QemuError(
                    f"the device {place.id} belongs to this host and its state cannot be saved; "
                    "unplug it first"
                )
        vcpus = []
        for slot in await monitor.ask("query-hotpluggable-cpus", list[VcpuSlot]):
            if slot.qom_path.startswith(_PERIPHERAL):
                name = _checked(_VCPU, slot.qom_path.removeprefix(_PERIPHERAL))
                vcpus.append({"driver": slot.type, "id": name, **slot.props})
        modules, memories = [], {}
        for device in await monitor.ask("query-memory-devices", list[MemoryDevice]):
            module = device.data
            memories[module.memory] = module.size
            names = {"driver": "pc-dimm", "id": module.id, "memdev": module.memory}
            modules.append({**names, "slot": module.slot, "addr": module.addr})
        ports = {}
        where: dict[str, object] = {"path": _PERIPHERAL.rstrip("/")}
        for item in await monitor.ask("qom-list", list[QomItem], where):
            if item.type == _PORT:
                name = _checked(_CHANNEL, item.name)
                number: dict[str, object] = {"path": _PERIPHERAL + name, "property": "nr"}
                ports[name] = await monitor.ask("qom-get", int, number)
        return cls(places, tuple(vcpus), tuple(modules), memories, ports)

    def memory_files(self, folder: Path) -> tuple[Path, ...]:
        """The files of the plugged memory in the folder of a checkpoint."""
        return tuple(folder / name for name in self.memories)

    async def plug(
        self, monitor: Monitor, view: View, folder: Path, devices: Mapping[str, Device]
    ) -> tuple[Place, ...]:
        """Plugs the devices into a machine that waits for the saved state.

        Args:
            monitor: monitor of the machine.
            view: view of the machine.
            folder: folder of the saved machine, with the memory of its modules.
            devices: the device for each place, by its id.

        Raises:
            QemuError: QEMU refuses; or a place has no device.
        """
        self._check(devices)
        for vcpu in self.vcpus:
            await monitor.execute("device_add", vcpu)
        for name, size in self.memories.items():
            kind = {
                "qom-type": "memory-backend-file",
                "mem-path": str(folder / name),
                "share": False,
            }
            await monitor.execute("object-add", {**kind, "id": name, "size": size})
        for module in self.modules:
            await monitor.execute("device_add", module)
        for name, number in self.ports.items():
            await monitor.execute(
                "chardev-add", {"id": _null_chardev(name), "backend": {"type": "null", "data": {}}}
            )
            port = {"driver": "virtserialport", "bus": f"{SERIAL_BUS}.0", "id": name, "nr": number}
            await monitor.execute("device_add", {**port, "chardev": _null_chardev(name)})
        return await self.put_back(monitor, view, devices)

    async def put_back(
        self, monitor: Monitor, view: View, devices: Mapping[str, Device]
    ) -> tuple[Place, ...]:
        """Plugs only what has a place into a machine that waits for the saved state.

        Raises:
            QemuError: QEMU refuses; or a place has no device.
        """
        self._check(devices)
        return tuple([await put(monitor, view, place, devices[place.id]) for place in self.places])

    def _check(self, devices: Mapping[str, Device]) -> None:
        if missing := [place.id for place in self.places if place.id not in devices]:
            raise QemuError(
                f"the saved machine had {', '.join(missing)}, "
                "and the new one was given nothing in its place"
            )

    async def drop_ports(self, monitor: Monitor) -> None:
        """Removes the ports of the saved machine's clients."""
        for name in self.ports:
            await monitor.unplug(name, _UNPLUG_S)
            await monitor.execute("chardev-remove", {"id": _null_chardev(name)})


def _checked(pattern: str, name: str) -> str:
    """Returns a name of a device, which a saved machine repeats in its commands."""
    if not re.fullmatch(pattern, name):
        raise QemuError(f"QEMU reports a device of a name that it was not given: {name[:80]!r}")
    return name


def _null_chardev(port: str) -> str:
    return f"{port}-null"
