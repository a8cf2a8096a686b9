"""What was plugged into a machine when it was saved: one that goes on from there must have it at the same places.

QEMU wants all of it to be there before it reads the state: qemu.git, docs/devel/migration, "device ordering".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from vc_core.spec import Drive, Share
from vc_qemu.command_line import SERIAL_BUS
from vc_qemu.errors import QemuError
from vc_qemu.hotplug import Place, put

if TYPE_CHECKING:
    from vc_qemu.monitor import Monitor

_PERIPHERAL = "/machine/peripheral/"
_PORT = "child<virtserialport>"
_LIMIT_S = 10.0  # a port goes at once: no guest is asked


@dataclass(frozen=True)
class Hotplugged:
    """All of it.

    Attributes:
        places: of folders and disks.
        vcpus: what device_add takes for each.
        modules: likewise, of memory.
        memories: what is behind those: name and bytes.
        ports: of channels, with their numbers. Their clients are the saved machine's.
    """

    places: tuple[Place, ...]
    vcpus: tuple[dict[str, Any], ...] = ()
    modules: tuple[dict[str, Any], ...] = ()
    memories: dict[str, int] = field(default_factory=dict)
    ports: dict[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, told: dict[str, Any]) -> Self:
        """From JSON."""
        places = tuple(Place.of(place) for place in told.pop("places"))
        return cls(places, tuple(told.pop("vcpus")), tuple(told.pop("modules")), **told)

    @classmethod
    async def look(cls, monitor: Monitor, places: tuple[Place, ...]) -> Self:
        """What a machine has.

        Raises:
            QemuError: a checkpoint cannot contain something of it; names it.
        """
        for place in places:
            if place.driver == "pci" or any(
                kind in ("chardev", "netdev") for kind, _ in place.backends
            ):
                raise QemuError(
                    f"the device {place.id} is of this host, and its state cannot be saved: unplug it before"
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
        for found in await monitor.execute("query-memory-devices"):
            data = found["data"]
            memory = str(data["memdev"]).rpartition("/")[2]
            memories[memory] = int(data["size"])
            names = {"driver": "pc-dimm", "id": data["id"], "memdev": memory}
            modules.append({**names, "slot": data["slot"], "addr": data["addr"]})
        ports = {}
        for item in await monitor.execute("qom-list", {"path": _PERIPHERAL.rstrip("/")}):
            if item["type"] == _PORT:
                path = _PERIPHERAL + item["name"]
                ports[item["name"]] = int(
                    await monitor.execute("qom-get", {"path": path, "property": "nr"})
                )
        return cls(places, tuple(vcpus), tuple(modules), memories, ports)

    async def plug(
        self, monitor: Monitor, run_dir: Path, folder: Path, devices: Mapping[str, Share | Drive]
    ) -> tuple[Place, ...]:
        """Plugs it into a machine that has not begun.

        Args:
            monitor: of the machine.
            run_dir: of the machine.
            folder: of the saved one: holds the memory of modules.
            devices: what to plug at each place, by its id.

        Raises:
            QemuError: QEMU refuses; or a place has no device.
        """
        if missing := [place.id for place in self.places if place.id not in devices]:
            raise QemuError(
                f"the saved machine had {', '.join(missing)}, which nobody brought along"
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
                "chardev-add", {"id": _link(name), "backend": {"type": "null", "data": {}}}
            )
            port = {"driver": "virtserialport", "bus": f"{SERIAL_BUS}.0", "id": name, "nr": number}
            await monitor.execute("device_add", {**port, "chardev": _link(name)})
        return tuple(
            [await put(monitor, run_dir, place, devices[place.id]) for place in self.places]
        )

    async def drop_ports(self, monitor: Monitor) -> None:
        """Takes the channels away that are another machine's."""
        for name in self.ports:
            await monitor.unplug(name, _LIMIT_S)
            await monitor.execute("chardev-remove", {"id": _link(name)})


def _link(port: str) -> str:
    return f"{port}-nobody"
