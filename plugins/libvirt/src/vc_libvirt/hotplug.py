"""Devices and channels that come and go in a running machine.

What is there is asked of libvirt, not remembered.
"""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

from vc_core.driver_kit import HostProcess
from vc_core.spec import Drive, DriveBus, GuestDriver, HostPci, Plugged
from vc_libvirt import device_xml
from vc_libvirt.errors import LibvirtError
from vc_libvirt.events import Listener, Opened, Stopped
from vc_libvirt.running_machine import RunningMachine

_SCSI_TARGETS = 256
_CLEARING_S = 5.0


async def plug(machine: RunningMachine, device: Drive | HostPci, root_ports: int) -> Plugged:
    """Plugs a device into the first place that is free. What a call has left that was interrupted is replaced.

    Raises:
        LibvirtError: no place is free, or libvirt's own words.
    """
    alias = device_xml.alias_of(device.id)
    found = await machine.xml()
    if alias in device_xml.aliases(found):
        await machine.detach(alias)
        found = await machine.xml()
    if isinstance(device, HostPci):
        place = _free(device_xml.ports(found), root_ports, "hypervisor.libvirt.root_ports")
        await machine.attach(device_xml.host_pci(device, place))
        return Plugged(device.id, GuestDriver.PCI, device_xml.behind_port(place))
    if device.bus is DriveBus.SCSI:
        place = _free(device_xml.scsi_targets(found), _SCSI_TARGETS, "SCSI targets")
    else:
        place = _free(device_xml.ports(found), root_ports, "hypervisor.libvirt.root_ports")
    await machine.attach(device_xml.drive(device, place))
    driver = GuestDriver.SCSI if device.bus is DriveBus.SCSI else GuestDriver.BLK
    return Plugged(device.id, driver, device_xml.drive_address(device.bus, place))


async def unplug(machine: RunningMachine, plugged: Plugged) -> None:
    """Unplugs a device."""
    await machine.detach(device_xml.alias_of(plugged.id))


async def open_channel(machine: RunningMachine, folder: Path, name: str) -> tuple[str, Path]:
    """Plugs a port for one client and waits until the guest has opened it; its alias and its socket.

    Raises:
        LibvirtError: refused, or the machine has ended.
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
            with contextlib.suppress(TimeoutError, LibvirtError):
                async with asyncio.timeout(_CLEARING_S):
                    await close_channel(machine, alias, path)
            raise
    return alias, path


async def _opened(listener: Listener, alias: str) -> None:
    async for event in listener.events():
        if isinstance(event, Stopped):
            raise LibvirtError("the machine has ended")
        if event == Opened(alias):
            return


async def close_channel(machine: RunningMachine, alias: str, path: Path) -> None:
    """Unplugs a port. One that is not there is no error, nor a machine that is gone."""
    import libvirt

    try:
        await machine.detach(alias)
    except LibvirtError as error:
        if error.code != libvirt.VIR_ERR_NO_DOMAIN:
            raise
    path.unlink(missing_ok=True)


async def _sweep(machine: RunningMachine, folder: Path) -> None:
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
    raise LibvirtError(f"all {count} places are taken; raise {what} for new pods")
