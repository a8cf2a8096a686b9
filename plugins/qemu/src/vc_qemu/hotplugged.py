"""The devices that were plugged into a machine when it was saved.

A machine that starts from the saved one must have the same devices at the same places before QEMU
reads the state: qemu.git, docs/devel/migration, "device ordering".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from vc_core.spec import Drive, GuestDriver, Nic, Share
from vc_qemu.command_line import SERIAL_BUS
from vc_qemu.errors import QemuError
from vc_qemu.hotplug import Place, put
from vc_qemu.jail.inside import View

if TYPE_CHECKING:
    from vc_qemu.monitor import Monitor

_PERIPHERAL = "/machine/peripheral/"
_PORT = "child<virtserialport>"
_UNPLUG_S = 10.0  # a port is released at once: the guest is not asked


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
        for place in await monitor.execute("query-hotpluggable-cpus"):
            path = place.get("qom-path", "")
            if path.startswith(_PERIPHERAL):
                vcpus.append(
                    {
                        "driver": place["type"],
                        "id": path.removeprefix(_PERIPHERAL),
                        **place["props"],
                    }
                )
        modules, memories = [], {}
        for device in await monitor.execute("query-memory-devices"):
            module = device["data"]
            memory = str(module["memdev"]).rpartition("/")[2]
            memories[memory] = int(module["size"])
            names = {"driver": "pc-dimm", "id": module["id"], "memdev": memory}
            modules.append({**names, "slot": module["slot"], "addr": module["addr"]})
        ports = {}
        for item in await monitor.execute("qom-list", {"path": _PERIPHERAL.rstrip("/")}):
            if item["type"] == _PORT:
                path = _PERIPHERAL + item["name"]
                ports[item["name"]] = int(
                    await monitor.execute("qom-get", {"path": path, "property": "nr"})
                )
        return cls(places, tuple(vcpus), tuple(modules), memories, ports)

    def memory_files(self, folder: Path) -> tuple[Path, ...]:
        """The files of the plugged memory in the folder of a checkpoint."""
        return tuple(folder / name for name in self.memories)

    async def plug(
        self, monitor: Monitor, view: View, folder: Path, devices: Mapping[str, Share | Drive | Nic]
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
        if missing := [place.id for place in self.places if place.id not in devices]:
            raise QemuError(
                f"the saved machine had {', '.join(missing)}, "
                "and the new one was given nothing in its place"
            )
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
        return tuple([await put(monitor, view, place, devices[place.id]) for place in self.places])

    async def drop_ports(self, monitor: Monitor) -> None:
        """Removes the ports of the saved machine's clients."""
        for name in self.ports:
            await monitor.unplug(name, _UNPLUG_S)
            await monitor.execute("chardev-remove", {"id": _null_chardev(name)})


def _null_chardev(port: str) -> str:
    return f"{port}-null"
