"""Saves running machines and starts machines from them.

libvirt saves a running machine without ending it (an external snapshot of memory alone), in the
format of `virsh save`. A machine that starts from it is restored under its own name and uuid.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

from vc_core.driver_kit import Accelerator, read_manifest, write_manifest
from vc_core.spec import Checkpoint, Drive, Share
from vc_libvirt import device_xml
from vc_libvirt.connection import Connection
from vc_libvirt.domain_xml import Domain, element, set_owner, text, tree
from vc_libvirt.errors import LibvirtError
from vc_libvirt.running_machine import RunningMachine
from vc_libvirt.save_image import Feed, SaveImage

_SCHEMA = 2
_MANIFEST, _IMAGE = "machine.json", "image"


@dataclass(frozen=True)
class Manifest:
    """The manifest of a saved machine.

    Attributes:
        vcpus: number at its start.
        memory_mib: memory in MiB at its start.
        accelerator: its accelerator; machines that start from it must have the same.
        image_bytes: size in bytes of the file that libvirt wrote.
    """

    vcpus: int
    memory_mib: int
    accelerator: Accelerator
    image_bytes: int = 0


def read(checkpoint: Checkpoint) -> tuple[Manifest, SaveImage]:
    """Reads the manifest and the image of a saved machine.

    Raises:
        HypervisorError: it is missing, damaged, or of another version.
    """
    path = checkpoint.folder / _IMAGE
    manifest = read_manifest(checkpoint.folder / _MANIFEST, Manifest, _SCHEMA)
    try:
        size = path.stat().st_size
    except OSError as error:
        raise LibvirtError(
            f"the saved machine in {checkpoint.folder} cannot be read: {error}"
        ) from error
    if size != manifest.image_bytes:
        raise LibvirtError(
            f"the saved machine in {checkpoint.folder} is damaged: "
            "its file has another size than when it was saved"
        )
    return manifest, SaveImage.read(path)


async def save(machine: RunningMachine, into: Checkpoint, manifest: Manifest) -> None:
    """Saves a machine, which then runs, or is paused, as before.

    Raises:
        LibvirtError: libvirt fails to save it, or the disk is full.
    """
    import libvirt

    xml = await machine.xml()
    if xml.find("devices/hostdev") is not None:
        raise LibvirtError(
            "a device of this host is plugged and its state cannot be saved; unplug it first"
        )
    names = [str(target.get("dev")) for target in xml.iterfind("devices/disk/target")]
    path = into.folder / _IMAGE
    snapshot = tree(
        "domainsnapshot",
        element("memory", snapshot="external", file=str(path)),
        tree("disks", *(element("disk", name=name, snapshot="no") for name in names)),
    )
    flags = libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_NO_METADATA
    await machine.ask(lambda domain: domain.snapshotCreateXML(text(snapshot), flags) and None)
    manifest = replace(manifest, image_bytes=path.stat().st_size)
    write_manifest(into.folder / _MANIFEST, manifest, _SCHEMA)


async def restore(connection: Connection, image: SaveImage, xml: ET.Element, folder: Path) -> None:
    """Starts a machine from a saved one; returns when its vCPUs run.

    Args:
        connection: connection to libvirtd.
        image: image of the saved machine.
        xml: XML of the new machine, from `another`.
        folder: folder for the pipe through which libvirtd reads both.

    Raises:
        LibvirtError: libvirt refuses; quotes libvirt.
    """
    pipe = folder / "saved.pipe"
    pipe.unlink(missing_ok=True)
    os.mkfifo(pipe, 0o600)
    feed = Feed(image, text(xml), pipe)
    feeding = asyncio.ensure_future(asyncio.to_thread(feed.run))
    try:
        await connection.call(lambda handle: handle.restore(str(pipe)) and None)
    finally:
        await asyncio.to_thread(feed.release)
        await feeding
        pipe.unlink()


def another(image: SaveImage, domain: Domain, restored: Mapping[str, Share | Drive]) -> ET.Element:
    """Returns the XML for a machine that starts from a saved one: the guest sees no difference.

    Args:
        image: image of the saved machine.
        domain: identity and files of the new machine.
        restored: alias of a device to its backing in the new machine.

    Raises:
        LibvirtError: a device has no backing.
    """
    xml = ET.fromstring(image.xml)
    xml.attrib.pop("id", None)
    for name, value in (("name", domain.name), ("uuid", domain.uuid)):
        _child(xml, name).text = value
    if (genid := xml.find("genid")) is not None:
        xml.remove(genid)
    xml.insert(2, element("genid"))
    set_owner(xml, domain.pod)
    for name, file in (("kernel", domain.kernel), ("initrd", domain.initrd)):
        _child(xml, f"os/{name}").text = str(file)
    folders = {share.tag: share for share in domain.shares}
    for filesystem in xml.iterfind("devices/filesystem"):
        tag = str(_child(filesystem, "target").get("dir"))
        _child(filesystem, "source").set("dir", str(folders[tag].path))
    for disk in xml.iterfind("devices/disk"):
        _move_disk(disk, restored)
    for port in (*xml.iterfind("devices/serial"), *xml.iterfind("devices/console")):
        _child(port, "source").set("path", str(domain.console))
    for channel in xml.iterfind("devices/channel"):
        _disconnect(channel)
    return xml


def left_channels(xml: ET.Element) -> list[str]:
    """Returns the aliases of channels whose clients are the saved machine's."""
    return [alias for alias in sorted(device_xml.aliases(xml)) if device_xml.channel_id(alias)]


def _move_disk(disk: ET.Element, restored: Mapping[str, Share | Drive]) -> None:
    alias = str(_child(disk, "alias").get("name"))
    device: Any = restored.get(alias)
    if not isinstance(device, Drive):
        raise LibvirtError(
            f"the saved machine had the disk {alias}, and the new one was given none in its place"
        )
    source = _child(disk, "source")
    source.attrib.clear()
    is_device = device.path.is_block_device()
    source.set("dev" if is_device else "file", str(device.path))
    disk.set("type", "block" if is_device else "file")


def _disconnect(channel: ET.Element) -> None:
    """Disconnects the client of a port, which stays open in the guest."""
    channel.set("type", "null")
    for source in channel.findall("source"):
        channel.remove(source)


def _child(whole: ET.Element, path: str) -> ET.Element:
    child = whole.find(path)
    if child is None:
        raise LibvirtError(f"the saved machine's XML has no {path}")
    return child
