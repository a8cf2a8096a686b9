"""vCPUs and memory that come and go."""

from __future__ import annotations

import logging

from vc_core.spec import VmSize
from vc_libvirt import device_xml
from vc_libvirt.errors import LibvirtError
from vc_libvirt.running_machine import RunningMachine

log = logging.getLogger(__name__)

_STEP_MIB = 128  # the size of the guest's memory blocks: less cannot be brought online


async def resize(
    machine: RunningMachine, start: VmSize, target: VmSize, can_lose_vcpus: bool
) -> VmSize:
    """Brings a machine to a size.

    Args:
        machine: that runs.
        start: what it was started with; it never gets smaller.
        target: totals.
        can_lose_vcpus: whether vCPUs can be unplugged: under TCG QEMU 7.2 dies of it some moments
            later.

    Raises:
        LibvirtError: it cannot grow so far; it is as before then, but for vCPUs that cannot be
            unplugged.
    """
    before = device_xml.vcpus(await machine.xml())
    if target.vcpus > before:
        await _set_vcpus(machine, target.vcpus)
    try:
        await _grow_memory(machine, start.memory_mib, target.memory_mib)
    except LibvirtError:
        if can_lose_vcpus and target.vcpus > before:
            await _set_vcpus(machine, before)
        raise
    await _shrink_memory(machine, start.memory_mib, max(start.memory_mib, target.memory_mib))
    fewest = max(start.vcpus, target.vcpus)
    if can_lose_vcpus and fewest < device_xml.vcpus(await machine.xml()):
        await _lose_vcpus(machine, fewest)
    found = await machine.xml()
    return VmSize(
        device_xml.vcpus(found), start.memory_mib + sum(device_xml.modules(found).values())
    )


async def _set_vcpus(machine: RunningMachine, count: int) -> None:
    import libvirt

    try:
        await machine.ask(
            lambda domain: domain.setVcpusFlags(count, libvirt.VIR_DOMAIN_AFFECT_LIVE)
        )
    except LibvirtError as error:
        if error.code != libvirt.VIR_ERR_INVALID_ARG:
            raise
        raise LibvirtError(
            f"{count} vCPUs were asked for: {error}; raise hypervisor.libvirt.max_vcpus for new pods",
            error.code,
        ) from error


async def _lose_vcpus(machine: RunningMachine, count: int) -> None:
    try:
        await _set_vcpus(machine, count)
    except LibvirtError as error:
        log.info("the guest keeps its vCPUs: %s", error)


async def _grow_memory(machine: RunningMachine, start_mib: int, target_mib: int) -> None:
    modules = device_xml.modules(await machine.xml())
    missing = target_mib - start_mib - sum(modules.values())
    if missing <= 0:
        return
    size = -(-missing // _STEP_MIB) * _STEP_MIB
    number = next(
        number for number in range(len(modules) + 1) if f"ua-dimm-{number}" not in modules
    )
    try:
        await machine.attach(device_xml.module(number, size))
    except LibvirtError as error:
        raise LibvirtError(
            f"{size} MiB cannot be plugged: {error}; raise hypervisor.libvirt.max_memory_mib or memory_slots for new "
            "pods",
            error.code,
        ) from error


async def _shrink_memory(machine: RunningMachine, start_mib: int, target_mib: int) -> None:
    """Unplugs the modules that fit into what is too much, the largest first, as far as the guest lets them go."""
    modules = device_xml.modules(await machine.xml())
    total = start_mib + sum(modules.values())
    for alias, size in sorted(modules.items(), key=lambda item: -item[1]):
        if size > total - target_mib:
            continue
        try:
            await machine.detach(alias)
        except LibvirtError as error:
            log.info("%s", error)
        else:
            total -= size
