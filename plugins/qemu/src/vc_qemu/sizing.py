"""vCPUs and memory plugged into a running machine, as QEMU reports them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vc_core.driver_kit import ResizableMachine
from vc_qemu.answers import MemoryDevice, VcpuSlot
from vc_qemu.errors import QemuError

if TYPE_CHECKING:
    from vc_qemu.monitor import Monitor

_PERIPHERAL = "/machine/peripheral/"


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
        return sum(bool(slot.qom_path) for slot in await self._vcpu_slots())

    async def add_vcpus(self, total: int) -> None:
        slots = await self._vcpu_slots()
        free = [slot for slot in slots if not slot.qom_path]
        free.sort(key=lambda slot: slot.position)
        missing = total - (len(slots) - len(free))
        if missing > len(free):
            raise QemuError(
                f"{total} vCPUs were requested and the machine has places for {len(slots)}; "
                "raise hypervisor.qemu.max_vcpus for new pods"
            )
        for slot in free[:missing]:
            name = "-".join(["cpu", *map(str, slot.position)])
            device = {"driver": slot.type, "id": name, **slot.props}
            await self._monitor.execute("device_add", device)

    async def remove_vcpus(self, total: int) -> None:
        """Removes vCPUs, the last ones first, until the guest refuses."""
        occupied = [slot for slot in await self._vcpu_slots() if slot.qom_path]
        plugged = [slot for slot in occupied if slot.qom_path.startswith(_PERIPHERAL)]
        plugged.sort(key=lambda slot: slot.position, reverse=True)
        for slot in plugged[: max(0, len(occupied) - total)]:
            await self._monitor.unplug(slot.qom_path.removeprefix(_PERIPHERAL), self._limit_s)

    async def memory_modules(self) -> dict[int, int]:
        devices = await self._monitor.ask("query-memory-devices", list[MemoryDevice])
        modules = (device.data for device in devices)
        return {int(module.id.removeprefix("dimm-")): module.size >> 20 for module in modules}

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

    async def _vcpu_slots(self) -> list[VcpuSlot]:
        return await self._monitor.ask("query-hotpluggable-cpus", list[VcpuSlot])
