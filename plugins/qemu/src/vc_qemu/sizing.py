"""vCPUs and memory plugged into a running machine, as QEMU reports them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from vc_core.driver_kit import ResizableMachine
from vc_qemu.errors import QemuError

if TYPE_CHECKING:
    from vc_qemu.monitor import Monitor

_PERIPHERAL = "/machine/peripheral/"
_MODULE = re.compile(r"dimm-(\d+)")


class QemuSize(ResizableMachine):
    """The size of a running machine.

    Args:
        monitor: monitor of the machine.
        shared_memory: whether other processes map its memory.
        limit_s: seconds that the guest has to release a vCPU or a module.
    """

    def __init__(self, monitor: Monitor, shared_memory: bool, limit_s: float) -> None:
        self._monitor = monitor
        self._shared_memory = shared_memory
        self._limit_s = limit_s

    async def vcpus(self) -> int:
        return sum("qom-path" in slot for slot in await self._vcpu_slots())

    async def add_vcpus(self, total: int) -> None:
        slots = await self._vcpu_slots()
        free = [slot for slot in slots if "qom-path" not in slot]
        free.sort(key=lambda slot: _position(slot["props"]))
        missing = total - (len(slots) - len(free))
        if missing > len(free):
            raise QemuError(
                f"{total} vCPUs were requested and the machine has places for {len(slots)}; "
                "raise hypervisor.qemu.max_vcpus for new pods"
            )
        for slot in free[:missing]:
            name = "-".join(["cpu", *map(str, _position(slot["props"]))])
            device = {"driver": slot["type"], "id": name, **slot["props"]}
            await self._monitor.execute("device_add", device)

    async def remove_vcpus(self, total: int) -> None:
        """Removes vCPUs, the last ones first, until the guest refuses."""
        occupied = [slot for slot in await self._vcpu_slots() if "qom-path" in slot]
        plugged = [slot for slot in occupied if slot["qom-path"].startswith(_PERIPHERAL)]
        plugged.sort(key=lambda slot: _position(slot["props"]), reverse=True)
        for slot in plugged[: max(0, len(occupied) - total)]:
            await self._monitor.unplug(slot["qom-path"].removeprefix(_PERIPHERAL), self._limit_s)

    async def memory_modules(self) -> dict[int, int]:
        sizes = {}
        for device in await self._monitor.execute("query-memory-devices"):
            module = device["data"]
            match = _MODULE.fullmatch(str(module.get("id", "")))
            if match:
                sizes[int(match[1])] = module["size"] >> 20
        return sizes

    async def add_memory_module(self, number: int, size_mib: int) -> None:
        memory: dict[str, object] = {"qom-type": "memory-backend-ram"}
        if self._shared_memory:
            memory = {"qom-type": "memory-backend-memfd", "share": True}
        memory |= {"id": f"mem-{number}", "size": size_mib << 20}
        await self._monitor.execute("object-add", memory)
        module: dict[str, object] = {
            "driver": "pc-dimm",
            "id": f"dimm-{number}",
            "memdev": f"mem-{number}",
        }
        try:
            await self._monitor.execute("device_add", module)
        except QemuError as error:
            await self._monitor.execute("object-del", {"id": f"mem-{number}"})
            raise QemuError(
                f"{size_mib} MiB cannot be plugged: {error}; "
                "raise hypervisor.qemu.max_memory_mib or memory_slots for new pods"
            ) from error

    async def remove_memory_module(self, number: int) -> None:
        await self._monitor.unplug(f"dimm-{number}", self._limit_s)
        await self._monitor.execute("object-del", {"id": f"mem-{number}"})

    async def _vcpu_slots(self) -> list[dict[str, Any]]:
        return list(await self._monitor.execute("query-hotpluggable-cpus"))


def _position(props: dict[str, Any]) -> tuple[int, int, int]:
    return props.get("socket-id", 0), props.get("core-id", 0), props.get("thread-id", 0)
