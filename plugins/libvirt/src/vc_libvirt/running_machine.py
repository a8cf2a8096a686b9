"""A machine that was started: its process, its log and the libvirt calls on it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

from vc_core.driver_kit import StartedMachine, wait_for_release
from vc_core.driver_kit.timeouts import timeout_after
from vc_core.spec import VmConfinement, VmPhase
from vc_libvirt import confinement, device_xml, exit_reason
from vc_libvirt.connection import Connection
from vc_libvirt.domain_xml import text
from vc_libvirt.errors import ConnectionLost, LibvirtError
from vc_libvirt.events import Listener, Removed, Stopped

_PENDING = "already in the process of unplug"
_NOTICE_S = 1.0  # for libvirtd to notice the end of a machine and to log it
_DESTROY_S = 1.5  # QEMU ends within milliseconds when it can


@dataclass(frozen=True)
class RunningMachine(StartedMachine):
    """A machine that was started; it may have ended since.

    Attributes:
        connection: connection to its libvirtd.
        uuid: uuid of the machine.
        log: libvirtd's log of the machine.
        limit_s: seconds that the guest has to release a device.
    """

    connection: Connection
    uuid: str
    log: Path
    limit_s: float

    async def exit_reason(self) -> str:
        """Returns why the machine has ended, in one sentence.

        libvirtd logs the cause when it notices the end, which may be right now: this waits for
        libvirtd's event, at most _NOTICE_S seconds.
        """
        with self.listening() as listener, contextlib.suppress(LibvirtError, TimeoutError):
            async with timeout_after(_NOTICE_S):
                await self.ask(lambda domain: domain.name())
                await listener.stopped()
        return exit_reason.reason(self.log)

    async def live_phase(self) -> VmPhase:
        import libvirt

        try:
            state, _ = await self.ask(lambda domain: domain.state())
        except LibvirtError as error:
            if error.code != libvirt.VIR_ERR_NO_DOMAIN:
                raise
            return VmPhase.ENDED  # libvirt has dropped it, its process is about to end
        return VmPhase.PAUSED if state == libvirt.VIR_DOMAIN_PAUSED else VmPhase.RUNNING

    async def end(self) -> None:
        """Ends the machine. Kills the process when libvirtd is not running or hangs.

        Raises:
            LibvirtError: libvirtd refuses.
        """
        import libvirt

        try:
            async with timeout_after(_DESTROY_S):
                await self.ask(lambda domain: domain.destroy())
        except (ConnectionLost, TimeoutError):
            if self.process is not None:
                await self.process.kill(0)
        except LibvirtError as error:
            if error.code != libvirt.VIR_ERR_NO_DOMAIN:
                raise
        await self.ended()

    async def confinement(self, pid: int) -> VmConfinement:
        """Returns how its process is confined; nothing when it has ended meanwhile."""
        import libvirt

        try:
            domain = await self.xml()
        except LibvirtError as error:
            if error.code != libvirt.VIR_ERR_NO_DOMAIN:
                raise
            return VmConfinement()
        return confinement.of_process(pid, domain)

    async def xml(self) -> ET.Element:
        """Returns the current XML of the domain."""
        return ET.fromstring(await self.ask(lambda domain: str(domain.XMLDesc())))

    async def ask(self, work: Callable[[Any], Any]) -> Any:
        """Runs a blocking call with libvirt's object of the domain."""
        return await self.connection.on_domain(self.uuid, work)

    async def attach(self, device: ET.Element) -> None:
        """Plugs a device."""
        import libvirt

        await self.ask(
            lambda domain: domain.attachDeviceFlags(text(device), libvirt.VIR_DOMAIN_AFFECT_LIVE)
        )

    async def detach(self, alias: str) -> None:
        """Unplugs a device; returns when the guest has released it.

        A device that is not there is no error.

        Raises:
            HypervisorError: refused, or kept by the guest beyond the limit.
        """
        import libvirt

        with self.listening() as listener:
            if not await self._has(alias):
                return
            try:
                await self.ask(
                    lambda domain: domain.detachDeviceAlias(alias, libvirt.VIR_DOMAIN_AFFECT_LIVE)
                )
            except LibvirtError as error:
                if error.code == libvirt.VIR_ERR_DEVICE_MISSING:
                    return
                if _PENDING not in str(error):
                    raise  # else: it was requested before, and the guest has not answered yet
            await wait_for_release(
                alias, _is_released(listener, alias), self.limit_s, lambda: self._has(alias)
            )

    async def _has(self, alias: str) -> bool:
        return alias in device_xml.aliases(await self.xml())

    @contextmanager
    def listening(self) -> Iterator[Listener]:
        """Provides the events of this machine for the length of a block."""
        with self.connection.listening(self.uuid) as listener:
            yield listener


async def _is_released(listener: Listener, alias: str) -> bool:
    async for event in listener.events():
        if isinstance(event, Stopped):
            return True
        if isinstance(event, Removed) and event.alias == alias:
            return event.is_gone
    raise AssertionError("events end with an exception")
