"""Builds the XML of plugged devices, and reads the devices from a domain's XML.

Format: libvirt.org/formatdomain.html.
"""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree as ET

from vc_core.driver_kit import ChannelId
from vc_core.spec import Drive, DriveBus, HostPci
from vc_libvirt.domain_xml import element, pci_address, port_bus, port_slot, tree

_PREFIX = "ua-"  # libvirt's prefix for aliases of users
_ODD = re.compile(r"[^A-Za-z0-9]")
_MODULE = re.compile(r"ua-dimm-(\d+)")
_LETTERS = 26


def alias_of(name: str) -> str:
    """Returns the alias of a device, unique for each name."""
    return _PREFIX + _ODD.sub(lambda match: f"_{ord(match[0]):x}_", name)


def channel_alias(channel_id: ChannelId) -> str:
    """Returns the alias of a channel's port, which includes its owner."""
    return f"{_PREFIX}{channel_id}"


def channel_id(alias: str) -> ChannelId | None:
    """Returns the channel of an alias; None for any other device."""
    return ChannelId.parse(alias.removeprefix(_PREFIX)) if alias.startswith(_PREFIX) else None


def channel(alias: str, path: Path, name: str) -> ET.Element:
    """Returns a virtio-serial port behind a unix socket."""
    source = element("source", mode="bind", path=str(path))
    target = element("target", type="virtio", name=name)
    return tree("channel", source, target, element("alias", name=alias), type="unix")


def drive(device: Drive, place: int) -> ET.Element:
    """Returns a disk.

    Args:
        device: the disk.
        place: its SCSI target, or the number of its root port.
    """
    is_scsi = device.bus is DriveBus.SCSI
    is_device = device.path.is_block_device()
    source = {"dev" if is_device else "file": str(device.path)}
    where = (
        element("address", type="drive", controller=0, bus=0, target=place, unit=0)
        if is_scsi
        else pci_address(port_bus(place), 0)
    )
    parts = [
        element("driver", name="qemu", type="raw"),
        element("source", **source),
        element(
            "target",
            dev=_disk_name("sd" if is_scsi else "vd", place),
            bus="scsi" if is_scsi else "virtio",
        ),
        element("alias", name=alias_of(device.id)),
        where,
    ]
    parts += [element("readonly")] if device.read_only else []
    return tree("disk", *parts, type="block" if is_device else "file", device="disk")


def drive_address(bus: DriveBus, place: int) -> str:
    """Returns the address by which the guest finds a disk: Plugged.address."""
    return f"{place}:0" if bus is DriveBus.SCSI else behind_port(place)


def behind_port(number: int) -> str:
    """Returns the address by which the guest finds a device behind a root port."""
    return f"{port_slot(number):x}/00"


def host_pci(device: HostPci, port: int) -> ET.Element:
    """Returns a PCI device of the host that is bound to vfio-pci."""
    domain, bus, rest = device.address.split(":")
    slot, function = rest.split(".")
    place = element(
        "address", domain=f"0x{domain}", bus=f"0x{bus}", slot=f"0x{slot}", function=f"0x{function}"
    )
    return tree(
        "hostdev",
        element("driver", name="vfio"),
        tree("source", place),
        element("alias", name=alias_of(device.id)),
        pci_address(port_bus(port), 0),
        mode="subsystem",
        type="pci",
        managed="no",
    )


def module_alias(number: int) -> str:
    """Returns the alias of a module of memory."""
    return f"{_PREFIX}dimm-{number}"


def module(number: int, size_mib: int) -> ET.Element:
    """Returns a module of memory."""
    target = tree("target", element("size", str(size_mib), unit="MiB"), element("node", "0"))
    return tree("memory", target, element("alias", name=module_alias(number)), model="dimm")


# --- the devices of a machine ---------------------------------------------------------------------


def aliases(machine: ET.Element) -> set[str]:
    """Returns the aliases of all devices."""
    return {str(alias.get("name")) for alias in machine.iterfind("devices/*/alias")}


def scsi_targets(machine: ET.Element) -> set[int]:
    """Returns the SCSI targets in use."""
    places = machine.iterfind("devices/disk/address[@type='drive']")
    return {int(place.get("target", "0"), 0) for place in places}


def ports(machine: ET.Element) -> set[int]:
    """Returns the numbers of the root ports in use."""
    places = machine.iterfind("devices/*/address[@type='pci']")
    buses = {int(place.get("bus", "0"), 0) for place in places}
    return {bus - port_bus(0) for bus in buses if bus >= port_bus(0)}


def modules(machine: ET.Element) -> dict[int, int]:
    """Returns number and size in MiB of each plugged module of memory."""
    sizes = {}
    for memory in machine.iterfind("devices/memory"):
        match = _MODULE.fullmatch(str(_part(memory, "alias").get("name")))
        if match:
            kib = int(_part(memory, "target/size").text or 0)
            sizes[int(match[1])] = kib >> 10
    return sizes


def vcpus(machine: ET.Element) -> int:
    """Returns the number of vCPUs that run."""
    vcpu = _part(machine, "vcpu")
    return int(vcpu.get("current") or vcpu.text or 1)


def _part(whole: ET.Element, path: str) -> ET.Element:
    part = whole.find(path)
    if part is None:
        raise ValueError(f"the machine's XML has no {path}")
    return part


def _disk_name(prefix: str, number: int) -> str:
    """Sda … sdz, sdaa …: libvirt's name of a disk, which the guest does not see."""
    letters = ""
    number += 1
    while number:
        number, rest = divmod(number - 1, _LETTERS)
        letters = chr(ord("a") + rest) + letters
    return prefix + letters
