"""Devices that come and go as libvirt's XML, and what of them a machine's XML tells.

Format: libvirt.org/formatdomain.html.
"""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree as ET

from vc_core.spec import Drive, DriveBus, HostPci
from vc_libvirt.domain_xml import element, pci_address, port_bus, port_slot, tree

_PREFIX = "ua-"  # by which libvirt tells aliases of users from its own
_ODD = re.compile(r"[^A-Za-z0-9]")
_CHANNEL = re.compile(r"ua-channel-(\d+)-(\d+)-\w+")
_MODULE = re.compile(r"ua-dimm-(\d+)")
_LETTERS = 26


def alias_of(name: str) -> str:
    """The alias of a device of ours: the same for the same name, and no other's."""
    return _PREFIX + _ODD.sub(lambda found: f"_{ord(found[0]):x}_", name)


def channel_alias(pid: int, start_ticks: int, token: str) -> str:
    """Tells who owns it, so that what a killed client left can be told and taken away."""
    return f"ua-channel-{pid}-{start_ticks}-{token}"


def owner_of_channel(alias: str) -> tuple[int, int] | None:
    """The process that owns a channel; None for what is none of ours."""
    found = _CHANNEL.fullmatch(alias)
    return (int(found[1]), int(found[2])) if found else None


def channel(alias: str, path: Path, name: str) -> ET.Element:
    """A virtio-serial port behind a unix socket."""
    source = element("source", mode="bind", path=str(path))
    target = element("target", type="virtio", name=name)
    return tree("channel", source, target, element("alias", name=alias), type="unix")


def drive(wanted: Drive, place: int) -> ET.Element:
    """A disk.

    Args:
        wanted: what it is.
        place: its SCSI target, or the number of its root port.
    """
    is_scsi = wanted.bus is DriveBus.SCSI
    is_device = wanted.path.is_block_device()
    source = {"dev" if is_device else "file": str(wanted.path)}
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
        element("alias", name=alias_of(wanted.id)),
        where,
    ]
    parts += [element("readonly")] if wanted.read_only else []
    return tree("disk", *parts, type="block" if is_device else "file", device="disk")


def drive_address(bus: DriveBus, place: int) -> str:
    """As the guest has to look for it: Plugged.address."""
    return f"{place}:0" if bus is DriveBus.SCSI else behind_port(place)


def behind_port(number: int) -> str:
    """As the guest has to look for what is behind a root port."""
    return f"{port_slot(number):x}/00"


def host_pci(wanted: HostPci, port: int) -> ET.Element:
    """A PCI device of the host that vfio-pci holds."""
    domain, bus, rest = wanted.address.split(":")
    slot, function = rest.split(".")
    place = element(
        "address", domain=f"0x{domain}", bus=f"0x{bus}", slot=f"0x{slot}", function=f"0x{function}"
    )
    return tree(
        "hostdev",
        element("driver", name="vfio"),
        tree("source", place),
        element("alias", name=alias_of(wanted.id)),
        pci_address(port_bus(port), 0),
        mode="subsystem",
        type="pci",
        managed="no",
    )


def module(number: int, size_mib: int) -> ET.Element:
    """A module of memory."""
    target = tree("target", element("size", str(size_mib), unit="MiB"), element("node", "0"))
    return tree("memory", target, element("alias", name=f"ua-dimm-{number}"), model="dimm")


# --- what a machine has ----------------------------------------------------------------------------------------------


def aliases(machine: ET.Element) -> set[str]:
    """Of all devices."""
    return {str(found.get("name")) for found in machine.iterfind("devices/*/alias")}


def scsi_targets(machine: ET.Element) -> set[int]:
    """Those that are taken."""
    places = machine.iterfind("devices/disk/address[@type='drive']")
    return {int(place.get("target", "0"), 0) for place in places}


def ports(machine: ET.Element) -> set[int]:
    """Numbers of the root ports that have something behind them."""
    places = machine.iterfind("devices/*/address[@type='pci']")
    buses = {int(place.get("bus", "0"), 0) for place in places}
    return {bus - port_bus(0) for bus in buses if bus >= port_bus(0)}


def modules(machine: ET.Element) -> dict[str, int]:
    """Plugged memory: alias to MiB."""
    found = {}
    for one in machine.iterfind("devices/memory"):
        alias = str(_part(one, "alias").get("name"))
        if _MODULE.fullmatch(alias):
            found[alias] = int(_part(one, "target/size").text or 0) >> 10  # libvirt tells KiB
    return found


def vcpus(machine: ET.Element) -> int:
    """How many run."""
    found = _part(machine, "vcpu")
    return int(found.get("current") or found.text or 1)


def _part(whole: ET.Element, path: str) -> ET.Element:
    found = whole.find(path)
    if found is None:
        raise ValueError(f"the machine's XML has no {path}")
    return found


def _disk_name(prefix: str, number: int) -> str:
    """Sda … sdz, sdaa …: only libvirt knows a disk by that."""
    letters = ""
    number += 1
    while number:
        number, rest = divmod(number - 1, _LETTERS)
        letters = chr(ord("a") + rest) + letters
    return prefix + letters
