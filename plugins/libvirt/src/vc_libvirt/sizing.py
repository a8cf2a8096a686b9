"""vCPUs and memory plugged into a running machine, as libvirt reports them."""

from __future__ import annotations

from vc_core.driver_kit import ResizableMachine
from vc_libvirt import device_xml
from vc_libvirt.errors import LibvirtError
from vc_libvirt.running_machine import RunningMachine


class LibvirtSize(ResizableMachine):
    """The size of a running machine."""

    def __init__(self, machine: RunningMachine) -> None:
        self._machine = machine

    async def vcpus(self) -> int:
        return device_xml.vcpus(await self._machine.xml())

    async def add_vcpus(self, total: int) -> None:
        import libvirt

        try:
            await self._set_vcpus(total)
        except LibvirtError as error:
            if error.code != libvirt.VIR_ERR_INVALID_ARG:
                raise
            raise LibvirtError(
                f"{total} vCPUs were requested: {error}; "
                "raise hypervisor.libvirt.max_vcpus for new pods",
                error.code,
            ) from error

    async def remove_vcpus(self, total: int) -> None:
        await self._set_vcpus(total)

    async def memory_modules(self) -> dict[int, int]:
        return device_xml.modules(await self._machine.xml())

    async def add_memory_module(self, number: int, size_mib: int) -> None:
        try:
            await self._machine.attach(device_xml.module(number, size_mib))
        except LibvirtError as error:
            raise LibvirtError(
                f"{size_mib} MiB cannot be plugged: {error}; "
                "raise hypervisor.libvirt.max_memory_mib or memory_slots for new pods",
                error.code,
            ) from error

    async def remove_memory_module(self, number: int) -> None:
        await self._machine.detach(device_xml.module_alias(number))

    async def _set_vcpus(self, total: int) -> None:
        import libvirt

        flags = libvirt.VIR_DOMAIN_AFFECT_LIVE
        await self._machine.ask(lambda domain: domain.setVcpusFlags(total, flags))
