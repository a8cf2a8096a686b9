"""vCPUs and memory that come and go. What is plugged is asked of QEMU, not remembered."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from vc_core.spec import VmSize
from vc_qemu.errors import QemuError

if TYPE_CHECKING:
    from vc_qemu.monitor import Monitor

log = logging.getLogger(__name__)

_STEP_MIB = 128  # the size of the guest's memory blocks: less cannot be brought online
_PERIPHERAL = "/machine/peripheral/"


async def resize(
    monitor: Monitor,
    start: VmSize,
    target: VmSize,
    shared: bool,
    can_lose_vcpus: bool,
    limit_s: float,
) -> VmSize:
    """Brings a machine to a size.

    Args:
        monitor: of the machine.
        start: what it was started with; it never gets smaller.
        target: totals.
        shared: whether other processes map its memory.
        can_lose_vcpus: whether vCPUs can be unplugged: under TCG QEMU 7.2 dies of it some moments
            later.
        limit_s: for the guest to let each thing go.

    Raises:
        QemuError: it cannot grow so far; it is as before then, but for vCPUs that cannot be
            unplugged.
    """
    before = await _grow_vcpus(monitor, target.vcpus)
    try:
        memory_mib = await _grow_memory(monitor, start.memory_mib, target.memory_mib, shared)
    except QemuError:
        if can_lose_vcpus:
            await _shrink_vcpus(monitor, before, limit_s)
        raise
    memory_mib = await _shrink_memory(
        monitor, memory_mib, max(start.memory_mib, target.memory_mib), limit_s
    )
    if can_lose_vcpus:
        await _shrink_vcpus(monitor, max(start.vcpus, target.vcpus), limit_s)
    places = await monitor.execute("query-hotpluggable-cpus")
    return VmSize(sum("qom-path" in place for place in places), memory_mib)


async def _grow_vcpus(monitor: Monitor, target: int) -> int:
    """Plugs what is missing; gives the number there was before."""
    places = await monitor.execute("query-hotpluggable-cpus")
    before = sum("qom-path" in place for place in places)
    free = sorted(
        (place for place in places if "qom-path" not in place),
        key=lambda place: _order(place["props"]),
    )
    missing = target - before
    if missing > len(free):
        raise QemuError(
            f"{target} vCPUs were asked for and the machine has places for {len(places)}; "
            "raise hypervisor.qemu.max_vcpus for new pods"
        )
    for place in free[: max(0, missing)]:
        name = "-".join(["cpu", *map(str, _order(place["props"]))])
        await monitor.execute("device_add", {"driver": place["type"], "id": name, **place["props"]})
    return before


async def _shrink_vcpus(monitor: Monitor, target: int, limit_s: float) -> None:
    """Unplugs the last ones first, as far as the guest lets them go."""
    places = [
        place for place in await monitor.execute("query-hotpluggable-cpus") if "qom-path" in place
    ]
    plugged = sorted(
        (
            place["qom-path"].removeprefix(_PERIPHERAL)
            for place in places
            if place["qom-path"].startswith(_PERIPHERAL)
        ),
        key=lambda name: [int(number) for number in name.split("-")[1:]],
    )
    count = len(places)
    while count > target and plugged:
        if not await _let_go(monitor, plugged.pop(), limit_s):
            break
        count -= 1


async def _grow_memory(monitor: Monitor, start_mib: int, target_mib: int, shared: bool) -> int:
    """Plugs one module that is large enough for what is missing; gives the total."""
    modules = await _modules(monitor)
    total = start_mib + sum(modules.values())
    missing = target_mib - total
    if missing <= 0:
        return total
    size = -(-missing // _STEP_MIB) * _STEP_MIB
    number = next(number for number in range(len(modules) + 1) if f"dimm-{number}" not in modules)
    kind = (
        {"qom-type": "memory-backend-memfd", "share": True}
        if shared
        else {"qom-type": "memory-backend-ram"}
    )
    await monitor.execute("object-add", {**kind, "id": f"mem-{number}", "size": size << 20})
    try:
        await monitor.execute(
            "device_add", {"driver": "pc-dimm", "id": f"dimm-{number}", "memdev": f"mem-{number}"}
        )
    except QemuError as error:
        await monitor.execute("object-del", {"id": f"mem-{number}"})
        raise QemuError(
            f"{size} MiB cannot be plugged into {total} MiB: {error}; "
            "raise hypervisor.qemu.max_memory_mib or memory_slots for new pods"
        ) from error
    return total + size


async def _shrink_memory(monitor: Monitor, total_mib: int, target_mib: int, limit_s: float) -> int:
    """Unplugs the modules that fit into what is too much, the largest first; gives the total that is left."""
    modules = await _modules(monitor)
    for name, size in sorted(modules.items(), key=lambda item: -item[1]):
        if size <= total_mib - target_mib and await _let_go(monitor, name, limit_s):
            await monitor.execute("object-del", {"id": f"mem-{name.partition('-')[2]}"})
            total_mib -= size
    return total_mib


async def _modules(monitor: Monitor) -> dict[str, int]:
    """Plugged memory modules: id to MiB."""
    found = [module["data"] for module in await monitor.execute("query-memory-devices")]
    return {
        data["id"]: data["size"] >> 20
        for data in found
        if str(data.get("id", "")).startswith("dimm-")
    }


async def _let_go(monitor: Monitor, device: str, limit_s: float) -> bool:
    """Whether the guest could do without it."""
    try:
        await monitor.unplug(device, limit_s)
    except QemuError as error:
        log.info("%s", error)
        return False
    return True


def _order(props: dict[str, Any]) -> tuple[int, int, int]:
    return props.get("socket-id", 0), props.get("core-id", 0), props.get("thread-id", 0)
