"""Machines and devices as XML: as structured values, as libvirt itself reads them, and what of them
is read back.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from xml.etree import ElementTree as ET

import libvirt
import pytest
from vc_libvirt import device_xml, domain_xml
from vc_libvirt.domain_xml import domain, text

from vc_core.driver_kit import Accelerator, ChannelId, HostProcess
from vc_core.spec import Drive, DriveBus, HostPci


def test_the_whole_machine(wanted):
    made = domain(wanted)
    ET.indent(made)
    assert text(made) + "\n" == (Path(__file__).parent / "golden_domain.xml").read_text()


def test_values_are_escaped_in_one_place(wanted):
    assert (
        ET.fromstring(text(domain(wanted))).find("devices/filesystem/source").get("dir")
        == "/a<b&c d"
    )


def test_ceilings_are_never_below_the_start(wanted):
    made = domain(dataclasses.replace(wanted, vcpus=8, memory_mib=8192))
    assert (made.findtext("vcpu"), made.find("vcpu").get("current")) == ("8", "8")
    assert made.find("maxMemory") is None
    assert made.findtext("memory") == "8192"


@pytest.mark.parametrize(
    ("accelerator", "cpu", "mode", "model"),
    [
        (Accelerator.KVM, "", "host-passthrough", None),
        (Accelerator.TCG, "", "maximum", None),
        (Accelerator.TCG, "Skylake-Client", "custom", "Skylake-Client"),
    ],
)
def test_the_best_cpu_is_the_accelerators(wanted, accelerator, cpu, mode, model):
    element = domain(dataclasses.replace(wanted, accelerator=accelerator, cpu=cpu)).find("cpu")
    assert (element.get("mode"), element.findtext("model")) == (mode, model)


def test_metadata_tells_whose_a_machine_is(wanted):
    made = domain(wanted)
    assert domain_xml.owner_of(made.find("metadata")) == "pod"
    domain_xml.set_owner(made, "other")
    assert domain_xml.owner_of(ET.fromstring(text(made)).find("metadata")) == "other"
    assert domain_xml.owner_of(None) == ""
    assert domain_xml.owner_of(ET.Element("metadata")) == ""


def test_libvirt_reads_a_machine_back_as_it_was_meant(wanted):
    """Its test driver has no QEMU behind it, but the same parser of machines."""
    handle = libvirt.open("test:///default")
    made = domain(dataclasses.replace(wanted, owner=None))
    made.set("type", "test")
    for name in ("filesystem", "serial"):  # whose files the test driver's own checks refuse
        for found in made.findall(f"devices/{name}"):
            made.find("devices").remove(found)
    known = handle.createXML(text(made), 0)
    try:
        told = ET.fromstring(known.XMLDesc())
        assert domain_xml.owner_of(told.find("metadata")) == "pod"
        assert told.findtext("os/cmdline") == "console=ttyS0 quiet"
        assert device_xml.vcpus(told) == 1
        assert device_xml.ports(told) == set()
    finally:
        known.destroy()
        handle.close()


@pytest.mark.parametrize("name", ["disk-1", "Disk_1", "a/b", "a_2d_b", "a-b"])
def test_aliases_are_no_others(name):
    others = {"disk-1", "Disk_1", "a/b", "a_2d_b", "a-b"} - {name}
    assert device_xml.alias_of(name) not in {device_xml.alias_of(other) for other in others}
    assert device_xml.alias_of(name).startswith("ua-")


def test_a_channel_tells_its_owner():
    channel_id = ChannelId(HostProcess(12, 345), "a1b2")
    assert device_xml.channel_id(device_xml.channel_alias(channel_id)) == channel_id
    assert device_xml.channel_id("ua-disk_2d_1") is None
    assert device_xml.channel_id(str(channel_id)) is None, "an alias of libvirt's own"


def machine_with(*devices: ET.Element) -> ET.Element:
    return domain_xml.tree("domain", domain_xml.tree("devices", *devices))


def test_places_that_are_taken_are_read_back(tmp_path):
    file = tmp_path / "disk"
    file.touch()
    scsi = device_xml.drive(Drive(id="d1", path=file, read_only=True, bus=DriveBus.SCSI), 7)
    blk = device_xml.drive(Drive(id="d2", path=file, read_only=False, bus=DriveBus.BLK), 1)
    pci = device_xml.host_pci(HostPci(id="p", address="0000:3b:1f.7"), 3)
    found = machine_with(scsi, blk, pci, device_xml.module(2, 128))
    assert device_xml.scsi_targets(found) == {7}
    assert device_xml.ports(found) == {1, 3}
    assert device_xml.aliases(found) >= {"ua-d1", "ua-d2", "ua-p", "ua-dimm-2"}
    assert scsi.find("readonly") is not None
    assert blk.find("readonly") is None
    assert pci.find("source/address").attrib == {
        "domain": "0x0000", "bus": "0x3b", "slot": "0x1f", "function": "0x7"
    }  # fmt: skip


def test_the_guest_finds_a_device_by_what_is_told():
    assert device_xml.drive_address(DriveBus.SCSI, 7) == "7:0"
    assert device_xml.drive_address(DriveBus.BLK, 0) == "1e/00"
    assert device_xml.behind_port(2) == "1c/00"


def test_libvirt_counts_memory_in_kib():
    module = device_xml.module(0, 0)
    module.find("target/size").text = str(384 * 1024)
    assert device_xml.modules(machine_with(module)) == {0: 384}


@pytest.mark.parametrize(("place", "name"), [(0, "sda"), (25, "sdz"), (26, "sdaa"), (255, "sdiv")])
def test_libvirt_names_disks_like_linux(tmp_path, place, name):
    made = device_xml.drive(Drive(id="d", path=tmp_path, read_only=True, bus=DriveBus.SCSI), place)
    assert made.find("target").get("dev") == name
