"""Devices plugged into a running machine, as libvirt reports them."""

from __future__ import annotations

from vc_core.driver_kit import first_free
from vc_core.spec import Drive, DriveBus, GuestDriver, HostPci, Plugged
from vc_libvirt import device_xml
from vc_libvirt.running_machine import RunningMachine

_SCSI_TARGETS = 256
_PORTS_REMEDY = "raise hypervisor.libvirt.root_ports for new pods"


async def plug(machine: RunningMachine, device: Drive | HostPci, root_ports: int) -> Plugged:
    """Plugs a device into the first free place.

    A device of the same id that an interrupted call left is replaced.

    Raises:
        HypervisorError: no place is free, or libvirt refuses.
    """
    alias = device_xml.alias_of(device.id)
    await machine.detach(alias)
    xml = await machine.xml()
    if isinstance(device, Drive) and device.bus is DriveBus.SCSI:
        targets = device_xml.scsi_targets(xml)
        place = first_free(targets, _SCSI_TARGETS, "SCSI targets", "remove disks from this pod")
    else:
        place = first_free(device_xml.ports(xml), root_ports, "root ports", _PORTS_REMEDY)
    if isinstance(device, HostPci):
        await machine.attach(device_xml.host_pci(device, place))
        return Plugged(id=device.id, driver=GuestDriver.PCI, address=device_xml.behind_port(place))
    await machine.attach(device_xml.drive(device, place))
    driver = GuestDriver.SCSI if device.bus is DriveBus.SCSI else GuestDriver.BLK
    return Plugged(id=device.id, driver=driver, address=device_xml.drive_address(device.bus, place))


async def unplug(machine: RunningMachine, plugged: Plugged) -> None:
    """Unplugs a device. One that is not there is no error.

    Raises:
        HypervisorError: the guest keeps it; it is still plugged.
    """
    await machine.detach(device_xml.alias_of(plugged.id))
