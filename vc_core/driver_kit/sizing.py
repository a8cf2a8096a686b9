"""The steps of vm_resize, for machines with plugged vCPUs and modules of memory."""

from __future__ import annotations

import logging
from typing import Protocol

from vc_core.spec import HypervisorError, VmSize

log = logging.getLogger(__name__)

MEMORY_BLOCK_MIB = 128  # of Linux on x86-64: the minimum that can be brought online


class ResizableMachine(Protocol):
    """The operations of a driver on a running machine."""

    async def vcpus(self) -> int:
        """Returns the number of vCPUs."""

    async def add_vcpus(self, total: int) -> None:
        """Plugs vCPUs until there are `total`. Raises HypervisorError when that fails."""

    async def remove_vcpus(self, total: int) -> None:
        """Unplugs vCPUs until there are `total`. Raises HypervisorError when the guest refuses."""

    async def memory_modules(self) -> dict[int, int]:
        """Returns number and size in MiB of each plugged module."""

    async def add_memory_module(self, number: int, size_mib: int) -> None:
        """Plugs a module. Raises HypervisorError on failure, with nothing of it left."""

    async def remove_memory_module(self, number: int) -> None:
        """Unplugs a module. Raises HypervisorError when the guest does not release it."""


async def resize(
    machine: ResizableMachine, start: VmSize, target: VmSize, can_unplug_vcpus: bool
) -> VmSize:
    """Resizes a machine, as far as its guest releases the excess.

    Args:
        machine: a running machine.
        start: its size at the start, which is its minimum.
        target: total vCPUs and memory.
        can_unplug_vcpus: whether plugged vCPUs can be unplugged again.

    Returns:
        Its current size.

    Raises:
        HypervisorError: the machine is unable to grow so far. It is unchanged then, except for
            plugged vCPUs where unplugging these is not supported.
    """
    vcpus_before = await machine.vcpus()
    if target.vcpus > vcpus_before:
        await machine.add_vcpus(target.vcpus)
    try:
        await _grow_memory(machine, start.memory_mib, target.memory_mib)
    except HypervisorError:
        if can_unplug_vcpus and target.vcpus > vcpus_before:
            await _shrink_vcpus(machine, vcpus_before)
        raise
    await _shrink_memory(machine, start.memory_mib, max(start.memory_mib, target.memory_mib))
    fewest_vcpus = max(start.vcpus, target.vcpus)
    if can_unplug_vcpus and fewest_vcpus < await machine.vcpus():
        await _shrink_vcpus(machine, fewest_vcpus)
    modules = await machine.memory_modules()
    return VmSize(vcpus=await machine.vcpus(), memory_mib=start.memory_mib + sum(modules.values()))


async def _shrink_vcpus(machine: ResizableMachine, total: int) -> None:
    try:
        await machine.remove_vcpus(total)
    except HypervisorError as error:
        log.info("the guest keeps its vCPUs: %s", error)


async def _grow_memory(machine: ResizableMachine, start_mib: int, target_mib: int) -> None:
    """Plugs one module that is large enough for the missing memory."""
    modules = await machine.memory_modules()
    missing_mib = target_mib - start_mib - sum(modules.values())
    if missing_mib <= 0:
        return
    number = next(number for number in range(len(modules) + 1) if number not in modules)
    blocks = -(-missing_mib // MEMORY_BLOCK_MIB)
    await machine.add_memory_module(number, blocks * MEMORY_BLOCK_MIB)


async def _shrink_memory(machine: ResizableMachine, start_mib: int, target_mib: int) -> None:
    """Unplugs the modules that fit into the excess, the largest first."""
    modules = await machine.memory_modules()
    total_mib = start_mib + sum(modules.values())
    for number, size_mib in sorted(modules.items(), key=lambda item: -item[1]):
        if size_mib > total_mib - target_mib:
            continue
        try:
            await machine.remove_memory_module(number)
        except HypervisorError as error:
            log.info("the guest keeps %d MiB of memory: %s", size_mib, error)
        else:
            total_mib -= size_mib
