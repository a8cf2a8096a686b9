"""Devices and channels that come and go in a running machine.

What is there is asked of libvirt, not remembered.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

from vc_core.driver_kit import HostProcess
from vc_core.spec import Drive, DriveBus, HostPci, Plugged
from vc_libvirt import device_xml
from vc_libvirt.connection import Connection
from vc_libvirt.domain_xml import text
from vc_libvirt.errors import LibvirtFailure
from vc_libvirt.events import Listener, Opened, Removed, Stopped

_SCSI_TARGETS = 256
_CLEARING_S = 5.0
_PENDING = "already in the process of unplug"


class Machine:
    """A running machine at libvirt.

    Args:
        connection: to its libvirtd.
        uuid: of the machine.
        limit_s: for the guest to let each thing go.
    """

    def __init__(self, connection: Connection, uuid: str, limit_s: float) -> None:
        self._connection = connection
        self._uuid = uuid
        self.limit_s = limit_s

    async def xml(self) -> ET.Element:
        """What it is now."""
        return ET.fromstring(await self.ask(lambda domain: str(domain.XMLDesc())))

    async def ask(self, work: Callable[[Any], Any]) -> Any:
        """Runs a blocking call with libvirt's object of it."""
        return await self._connection.on_domain(self._uuid, work)

    async def attach(self, device: ET.Element) -> None:
        """Plugs a device."""
        import libvirt

        await self.ask(
            lambda domain: domain.attachDeviceFlags(text(device), libvirt.VIR_DOMAIN_AFFECT_LIVE)
        )

    async def detach(self, alias: str) -> None:
        """Unplugs a device and waits until the guest has let it go. One that is not there is no error.

        Raises:
            LibvirtFailure: refused, or kept by the guest beyond the limit: it is still there.
        """
        import libvirt

        with self.listening() as listener:
            if alias not in device_xml.aliases(await self.xml()):
                return
            try:
                await self.ask(
                    lambda domain: domain.detachDeviceAlias(alias, libvirt.VIR_DOMAIN_AFFECT_LIVE)
                )
            except LibvirtFailure as error:
                if error.code == libvirt.VIR_ERR_DEVICE_MISSING:
                    return
                if _PENDING not in str(error):
                    raise  # else: somebody has asked before, and the guest has not answered yet
            try:
                async with asyncio.timeout(self.limit_s):
                    await _removed(listener, alias)
            except TimeoutError as error:
                if alias in device_xml.aliases(await self.xml()):
                    raise LibvirtFailure(
                        f"the guest has not let {alias} go within {self.limit_s:g} s; it is still there"
                    ) from error

    @contextmanager
    def listening(self) -> Iterator[Listener]:
        """What happens to it, for the length of a block."""
        with self._connection.listening(self._uuid) as listener:
            yield listener


async def _removed(listener: Listener, alias: str) -> None:
    async for event in listener.events():
        if isinstance(event, Stopped):
            return
        if isinstance(event, Removed) and event.alias == alias:
            if not event.is_gone:
                raise LibvirtFailure(f"the guest refuses to let {alias} go; it is still there")
            return


async def plug(machine: Machine, device: Drive | HostPci, root_ports: int) -> Plugged:
    """Plugs a device into the first place that is free. What a call has left that was interrupted is replaced.

    Raises:
        LibvirtFailure: no place is free, or libvirt's own words.
    """
    alias = device_xml.alias_of(device.id)
    found = await machine.xml()
    if alias in device_xml.aliases(found):
        await machine.detach(alias)
        found = await machine.xml()
    if isinstance(device, HostPci):
        place = _free(device_xml.ports(found), root_ports, "hypervisor.libvirt.root_ports")
        await machine.attach(device_xml.host_pci(device, place))
        return Plugged(device.id, "pci", device_xml.behind_port(place))
    if device.bus is DriveBus.SCSI:
        place = _free(device_xml.scsi_targets(found), _SCSI_TARGETS, "SCSI targets")
    else:
        place = _free(device_xml.ports(found), root_ports, "hypervisor.libvirt.root_ports")
    await machine.attach(device_xml.drive(device, place))
    driver = "scsi" if device.bus is DriveBus.SCSI else "blk"
    return Plugged(device.id, driver, device_xml.drive_address(device.bus, place))


async def unplug(machine: Machine, plugged: Plugged) -> None:
    """Unplugs a device."""
    await machine.detach(device_xml.alias_of(plugged.id))


async def open_channel(machine: Machine, folder: Path, name: str) -> tuple[str, Path]:
    """Plugs a port for one client and waits until the guest has opened it; its alias and its socket.

    Raises:
        LibvirtFailure: refused, or the machine has ended.
    """
    await _sweep(machine, folder)
    me = HostProcess.this()
    token = name.rpartition(".")[2]
    alias, path = device_xml.channel_alias(me.pid, me.start_ticks, token), _socket(folder, token)
    path.unlink(missing_ok=True)
    with machine.listening() as listener:
        try:
            await machine.attach(device_xml.channel(alias, path, name))
            await _opened(listener, alias)
        except BaseException:
            # In a machine that hangs it stays until this process ends: then the next client takes
            # it away.
            with contextlib.suppress(TimeoutError, LibvirtFailure):
                async with asyncio.timeout(_CLEARING_S):
                    await close_channel(machine, alias, path)
            raise
    return alias, path


async def _opened(listener: Listener, alias: str) -> None:
    async for event in listener.events():
        if isinstance(event, Stopped):
            raise LibvirtFailure("the machine has ended")
        if event == Opened(alias):
            return


async def close_channel(machine: Machine, alias: str, path: Path) -> None:
    """Unplugs a port. One that is not there is no error, nor a machine that is gone."""
    import libvirt

    try:
        await machine.detach(alias)
    except LibvirtFailure as error:
        if error.code != libvirt.VIR_ERR_NO_DOMAIN:
            raise
    path.unlink(missing_ok=True)


async def _sweep(machine: Machine, folder: Path) -> None:
    """Takes away what clients left that are no more."""
    for alias in device_xml.aliases(await machine.xml()):
        owner = device_xml.owner_of_channel(alias)
        if owner and not HostProcess(*owner).is_alive():
            await close_channel(machine, alias, _socket(folder, alias.rpartition("-")[2]))


def _socket(folder: Path, token: str) -> Path:
    """Short, for unix sockets have short paths."""
    return folder / f"{token}.sock"


def _free(taken: set[int], count: int, what: str) -> int:
    for number in range(count):
        if number not in taken:
            return number
    raise LibvirtFailure(f"all {count} places are taken; raise {what} for new pods")
