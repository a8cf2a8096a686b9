"""Builds the XML of a machine from typed values.

Format: libvirt.org/formatdomain.html.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree as ET

from vc_core.driver_kit import Accelerator

NAMESPACE = "urn:virtcontainers:1"
_METADATA = f"{{{NAMESPACE}}}pod"
_LAST_PORT = 0x1E  # 0x1f is the q35 chipset's own
_SCSI_SLOT, _SERIAL_SLOT, _BALLOON_SLOT, _FIRST_SHARE_SLOT = 2, 3, 4, 5
_MAX_CHANNELS = 64
DOMAIN_TYPES = {Accelerator.KVM: "kvm", Accelerator.TCG: "qemu"}
ET.register_namespace("vc", NAMESPACE)


@dataclass(frozen=True)
class Folder:
    """A 9p share that is present from the start."""

    tag: str
    path: Path
    read_only: bool


@dataclass(frozen=True)
class Domain:
    """Everything that shapes a machine.

    Attributes:
        name: name of the domain, unique at its libvirtd.
        uuid: uuid of the domain.
        pod: the owner, in its metadata.
        accelerator: KVM or TCG.
        emulator: the program that runs it; empty for libvirt's own choice.
        machine: machine type.
        cpu: CPU model; empty for the best of the accelerator.
        vcpus: number at the start.
        max_vcpus: the largest number.
        memory_mib: memory at the start, in MiB.
        max_memory_mib: the largest memory, in MiB.
        memory_slots: how many times memory can be plugged.
        kernel: an ELF kernel with a PVH entry.
        initrd: the guest's initial root file system.
        parameters: the kernel's command line.
        console: the file of the guest's console.
        shares: the shares from the start.
        root_ports: places for devices that are plugged later.
        free_page_reporting: whether memory that the guest has freed is returned.
        owner: user and group id of the process; None leaves them to libvirtd.
    """

    name: str
    uuid: str
    pod: str
    accelerator: Accelerator
    emulator: str
    machine: str
    cpu: str
    vcpus: int
    max_vcpus: int
    memory_mib: int
    max_memory_mib: int
    memory_slots: int
    kernel: Path
    initrd: Path
    parameters: tuple[str, ...]
    console: Path
    shares: tuple[Folder, ...] = ()
    root_ports: int = 0
    free_page_reporting: bool = True
    owner: tuple[int, int] | None = None


def element(name: str, text: str = "", /, **attributes: str | int) -> ET.Element:
    """Returns an element without children. Underscores at the end of attributes are removed."""
    node = ET.Element(name, {key.rstrip("_"): str(value) for key, value in attributes.items()})
    node.text = text or None
    return node


def tree(name: str, *children: ET.Element, **attributes: str | int) -> ET.Element:
    """Returns an element with children."""
    node = element(name, **attributes)
    node.extend(children)
    return node


def text(node: ET.Element) -> str:
    """Returns an element as text."""
    return ET.tostring(node, encoding="unicode")


def domain(machine: Domain) -> ET.Element:
    """Returns the XML of a machine."""
    max_vcpus = max(machine.vcpus, machine.max_vcpus)
    max_memory_mib = max(machine.memory_mib, machine.max_memory_mib)
    can_grow = max_memory_mib > machine.memory_mib
    root = tree(
        "domain",
        element("name", machine.name),
        element("uuid", machine.uuid),
        element("genid"),
        tree("metadata", ET.Element(_METADATA, {"id": machine.pod})),
        element("memory", str(machine.memory_mib), unit="MiB"),
        element("vcpu", str(max_vcpus), placement="static", current=machine.vcpus),
        _os(machine),
        tree("features", element("acpi"), element("apic"), element("vmport", state="off")),
        _cpu(machine, max_vcpus if can_grow else 0),
        *(element(f"on_{event}", "destroy") for event in ("poweroff", "reboot", "crash")),
        _devices(machine),
        type=DOMAIN_TYPES[machine.accelerator],
    )
    if can_grow:
        root.insert(
            4, element("maxMemory", str(max_memory_mib), unit="MiB", slots=machine.memory_slots)
        )
    if machine.owner:
        user, group = machine.owner
        label = element("label", f"+{user}:+{group}")
        root.append(tree("seclabel", label, type="static", model="dac", relabel="no"))
    return root


def pci_address(bus: int, slot: int) -> ET.Element:
    """Returns the PCI address of a device."""
    return element("address", type="pci", domain=0, bus=bus, slot=f"{slot:#04x}", function=0)


def port_slot(number: int) -> int:
    """Returns the fixed slot of a root port, from the unused end of the bus."""
    return _LAST_PORT - number


def port_bus(number: int) -> int:
    """Returns the bus behind a root port."""
    return number + 1


def owner_of(metadata: ET.Element | None) -> str:
    """Returns the pod in a machine's metadata; empty for a machine that is not of this plugin."""
    owner = metadata.find(_METADATA) if metadata is not None else None
    return owner.get("id", "") if owner is not None else ""


def set_owner(domain: ET.Element, pod: str) -> None:
    """Writes another pod into a machine's metadata."""
    for owner in domain.iter(_METADATA):
        owner.set("id", pod)


def _os(machine: Domain) -> ET.Element:
    return tree(
        "os",
        element("type", "hvm", arch="x86_64", machine=machine.machine),
        element("kernel", str(machine.kernel)),
        element("initrd", str(machine.initrd)),
        element("cmdline", " ".join(machine.parameters)),
    )


def _cpu(machine: Domain, cells: int) -> ET.Element:
    """Returns the CPU model, and a NUMA node, which plugging memory requires."""
    cpu = element(
        "cpu", mode="host-passthrough" if machine.accelerator is Accelerator.KVM else "maximum"
    )
    if machine.cpu:
        cpu = tree("cpu", element("model", machine.cpu), mode="custom", match="exact")
    if cells:
        memory: Mapping[str, str | int] = {"memory": machine.memory_mib, "unit": "MiB"}
        cpu.append(tree("numa", element("cell", id=0, cpus=f"0-{cells - 1}", **memory)))
    return cpu


def _devices(machine: Domain) -> ET.Element:
    devices = ET.Element("devices")
    if machine.emulator:
        devices.append(element("emulator", machine.emulator))
    devices.append(element("controller", type="usb", model="none"))
    devices.append(element("controller", type="pci", index=0, model="pcie-root"))
    for number in range(machine.root_ports):
        place = pci_address(0, port_slot(number))
        devices.append(
            tree("controller", place, type="pci", index=port_bus(number), model="pcie-root-port")
        )
    devices.append(
        tree("controller", pci_address(0, _SCSI_SLOT), type="scsi", index=0, model="virtio-scsi")
    )
    serial = pci_address(0, _SERIAL_SLOT)
    devices.append(tree("controller", serial, type="virtio-serial", index=0, ports=_MAX_CHANNELS))
    for number, share in enumerate(machine.shares):
        devices.append(_filesystem(share, _FIRST_SHARE_SLOT + number))
    console = element("source", path=str(machine.console), append="on")
    devices.append(tree("serial", console, element("target", port=0), type="file"))
    if machine.free_page_reporting:
        place = pci_address(0, _BALLOON_SLOT)
        devices.append(tree("memballoon", place, model="virtio", freePageReporting="on"))
    else:
        devices.append(element("memballoon", model="none"))
    return devices


def _filesystem(share: Folder, slot: int) -> ET.Element:
    parts = [element("source", dir=str(share.path)), element("target", dir=share.tag)]
    parts += [element("readonly")] if share.read_only else []
    parts.append(pci_address(0, slot))
    return tree("filesystem", *parts, type="mount", accessmode="passthrough", multidevs="remap")
