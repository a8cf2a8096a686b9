"""A machine that was started: its process, its log and what libvirt does with it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

from vc_core.driver_kit import HostProcess
from vc_core.spec import VmPhase, VmStatus
from vc_libvirt import device_xml, exit_reason
from vc_libvirt.connection import Connection
from vc_libvirt.domain_xml import text
from vc_libvirt.errors import ConnectionLost, LibvirtError
from vc_libvirt.events import Listener, Removed, Stopped

_PENDING = "already in the process of unplug"
_NOTICE_S = 1.0  # for libvirtd to notice the end of a machine and to log it
_DESTROY_S = 1.5  # QEMU ends within milliseconds when it can


@dataclass(frozen=True)
class RunningMachine:
    """A machine that was started; it may have ended since.

    Attributes:
        connection: to its libvirtd.
        uuid: of the machine.
        log: the file that libvirtd keeps of it.
        process: its QEMU, None when the machine was never started.
        limit_s: how many seconds the guest has to release a device.
    """

    connection: Connection
    uuid: str
    log: Path
    process: HostProcess | None
    limit_s: float

    def is_alive(self) -> bool:
        """Whether QEMU runs."""
        return self.process is not None and self.process.is_alive()

    async def live_process(self) -> HostProcess:
        """The QEMU process.

        Raises:
            LibvirtError: the machine has ended.
        """
        if self.process is None or not self.process.is_alive():
            raise LibvirtError(f"the machine has ended: {await self.exit_reason()}")
        return self.process

    async def ended(self) -> None:
        """Returns when no QEMU runs."""
        if self.process is not None:
            await self.process.ended()

    async def exit_reason(self) -> str:
        """Why the machine has ended, in one sentence.

        libvirtd logs it when it has noticed the end, which may be just now: so this waits for
        libvirtd's event, at most _NOTICE_S seconds.
        """
        with self.listening() as listener, contextlib.suppress(LibvirtError, TimeoutError):
            async with asyncio.timeout(_NOTICE_S):
                await self.ask(lambda domain: domain.name())
                await listener.stopped()
        return exit_reason.reason(self.log)

    async def status(self) -> VmStatus:
        """Phase, pid and the reason of an end.

        Raises:
            LibvirtError: libvirtd does not answer, or refuses.
        """
        if self.process is None:
            return VmStatus(VmPhase.ABSENT)
        if not self.process.is_alive():
            return VmStatus(VmPhase.ENDED, 0, await self.exit_reason())
        return VmStatus(await self._phase(), self.process.pid)

    async def _phase(self) -> VmPhase:
        import libvirt

        try:
            state, _ = await self.ask(lambda domain: domain.state())
        except LibvirtError as error:
            if error.code != libvirt.VIR_ERR_NO_DOMAIN:
                raise
            return VmPhase.ENDED  # libvirt has dropped it, its process is about to end
        return VmPhase.PAUSED if state == libvirt.VIR_DOMAIN_PAUSED else VmPhase.RUNNING

    async def end(self) -> None:
        """Ends the machine. Kills the process where libvirtd is not there, or hangs with the machine.

        Raises:
            LibvirtError: libvirtd refuses.
        """
        import libvirt

        try:
            async with asyncio.timeout(_DESTROY_S):
                await self.ask(lambda domain: domain.destroy())
        except (ConnectionLost, TimeoutError):
            if self.process is not None:
                await self.process.kill(0)
        except LibvirtError as error:
            if error.code != libvirt.VIR_ERR_NO_DOMAIN:
                raise
        await self.ended()

    async def xml(self) -> ET.Element:
        """What it is now."""
        return ET.fromstring(await self.ask(lambda domain: str(domain.XMLDesc())))

    async def ask(self, work: Callable[[Any], Any]) -> Any:
        """Runs a blocking call with libvirt's object of it."""
        return await self.connection.on_domain(self.uuid, work)

    async def attach(self, device: ET.Element) -> None:
        """Plugs a device."""
        import libvirt

        await self.ask(
            lambda domain: domain.attachDeviceFlags(text(device), libvirt.VIR_DOMAIN_AFFECT_LIVE)
        )

    async def detach(self, alias: str) -> None:
        """Unplugs a device and waits until the guest has let it go. One that is not there is no error.

        Raises:
            LibvirtError: refused, or kept by the guest beyond the limit: it is still there.
        """
        import libvirt

        with self.listening() as listener:
            if alias not in device_xml.aliases(await self.xml()):
                return
            try:
                await self.ask(
                    lambda domain: domain.detachDeviceAlias(alias, libvirt.VIR_DOMAIN_AFFECT_LIVE)
                )
            except LibvirtError as error:
                if error.code == libvirt.VIR_ERR_DEVICE_MISSING:
                    return
                if _PENDING not in str(error):
                    raise  # else: somebody has asked before, and the guest has not answered yet
            try:
                async with asyncio.timeout(self.limit_s):
                    await _removed(listener, alias)
            except TimeoutError as error:
                if alias in device_xml.aliases(await self.xml()):
                    raise LibvirtError(
                        f"the guest has not let {alias} go within {self.limit_s:g} s; it is still there"
                    ) from error

    @contextmanager
    def listening(self) -> Iterator[Listener]:
        """What happens to it, for the length of a block."""
        with self.connection.listening(self.uuid) as listener:
            yield listener


async def _removed(listener: Listener, alias: str) -> None:
    async for event in listener.events():
        if isinstance(event, Stopped):
            return
        if isinstance(event, Removed) and event.alias == alias:
            if not event.is_gone:
                raise LibvirtError(f"the guest refuses to let {alias} go; it is still there")
            return
