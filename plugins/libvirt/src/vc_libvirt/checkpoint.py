"""Machines saved in the middle of their work, and others that go on from there.

libvirt saves the memory of a running machine without ending it (an external snapshot of memory
alone), in the format of `virsh save`. What goes on from that is restored under a name and uuid of
its own.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

from vc_core.driver_kit import write_private_file
from vc_core.spec import Checkpoint, Drive, Share
from vc_libvirt import device_xml
from vc_libvirt.connection import Connection
from vc_libvirt.domain_xml import Domain, element, set_owner, text, tree
from vc_libvirt.errors import LibvirtError
from vc_libvirt.running_machine import RunningMachine
from vc_libvirt.save_image import Feed, SaveImage

_SCHEMA = 1
_RECORD, _IMAGE = "machine.json", "image"


@dataclass(frozen=True)
class Manifest:
    """What a machine must know of the one that it starts from.

    Attributes:
        vcpus: that it was started with.
        memory_mib: that it was started with.
        kind: "kvm" or "qemu".
        image_bytes: the size of what libvirt wrote.
    """

    vcpus: int
    memory_mib: int
    kind: str
    image_bytes: int = 0


def read(checkpoint: Checkpoint) -> tuple[Manifest, SaveImage]:
    """What is known of a saved machine.

    Raises:
        LibvirtError: it is not there, incomplete, or another version's.
    """
    path = checkpoint.folder / _IMAGE
    try:
        told = json.loads((checkpoint.folder / _RECORD).read_text())
        if told.pop("schema") != _SCHEMA:
            raise LibvirtError(
                f"the saved machine in {checkpoint.folder} was written by another version of virtcontainers-libvirt"
            )
        origin = Manifest(**told)
        size = path.stat().st_size
    except OSError as error:
        raise LibvirtError(
            f"the saved machine in {checkpoint.folder} cannot be read: {error}"
        ) from error
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise LibvirtError(
            f"the saved machine in {checkpoint.folder} is damaged: {error}"
        ) from error
    if size != origin.image_bytes:
        raise LibvirtError(
            f"the saved machine in {checkpoint.folder} is damaged: its file has another size than at first"
        )
    return origin, SaveImage.read(path)


async def save(machine: RunningMachine, into: Checkpoint, origin: Manifest) -> None:
    """Writes a machine; it goes on, or stands still, as before.

    Raises:
        LibvirtError: libvirt cannot save it, or the disk is full.
    """
    import libvirt

    found = await machine.xml()
    if found.find("devices/hostdev") is not None:
        raise LibvirtError(
            "a device of this host is plugged, and its state cannot be saved: unplug it before"
        )
    names = [str(target.get("dev")) for target in found.iterfind("devices/disk/target")]
    path = into.folder / _IMAGE
    wanted = tree(
        "domainsnapshot",
        element("memory", snapshot="external", file=str(path)),
        tree("disks", *(element("disk", name=name, snapshot="no") for name in names)),
    )
    flags = libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_NO_METADATA
    await machine.ask(lambda domain: domain.snapshotCreateXML(text(wanted), flags) and None)
    told = {"schema": _SCHEMA, **asdict(origin), "image_bytes": path.stat().st_size}
    write_private_file(into.folder / _RECORD, json.dumps(told))


async def restore(connection: Connection, image: SaveImage, xml: ET.Element, folder: Path) -> None:
    """Starts a machine where another was saved; returns when its vCPUs run.

    Args:
        connection: to libvirtd.
        image: of the saved machine.
        xml: of the new one, as `another` makes it.
        folder: for the pipe through which libvirtd gets both.

    Raises:
        LibvirtError: with libvirt's words.
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


def another(image: SaveImage, wanted: Domain, restored: Mapping[str, Share | Drive]) -> ET.Element:
    """The XML of a saved machine for one that goes on from it: what the guest sees stays.

    Args:
        image: of the saved machine.
        wanted: who the new one is, and where its own files are.
        restored: by the aliases of devices: what is behind them for the new one.

    Raises:
        LibvirtError: something has nothing behind it any more.
    """
    made = ET.fromstring(image.xml)
    made.attrib.pop("id", None)
    for name, value in (("name", wanted.name), ("uuid", wanted.uuid)):
        _child(made, name).text = value
    if (genid := made.find("genid")) is not None:
        made.remove(genid)
    made.insert(2, element("genid"))
    set_owner(made, wanted.pod)
    for name, file in (("kernel", wanted.kernel), ("initrd", wanted.initrd)):
        _child(made, f"os/{name}").text = str(file)
    folders = {share.tag: share for share in wanted.shares}
    for found in made.iterfind("devices/filesystem"):
        _child(found, "source").set(
            "dir", str(folders[str(_child(found, "target").get("dir"))].path)
        )
    for found in made.iterfind("devices/disk"):
        _move_disk(found, restored)
    for found in (*made.iterfind("devices/serial"), *made.iterfind("devices/console")):
        _child(found, "source").set("path", str(wanted.console))
    for found in made.iterfind("devices/channel"):
        _cut_off(found)
    return made


def left_channels(xml: ET.Element) -> list[str]:
    """The aliases of channels whose clients are another machine's."""
    return [
        alias for alias in sorted(device_xml.aliases(xml)) if device_xml.owner_of_channel(alias)
    ]


def _move_disk(disk: ET.Element, restored: Mapping[str, Share | Drive]) -> None:
    alias = str(_child(disk, "alias").get("name"))
    device: Any = restored.get(alias)
    if not isinstance(device, Drive):
        raise LibvirtError(f"the saved machine had the disk {alias}, which nobody brought along")
    source = _child(disk, "source")
    source.attrib.clear()
    is_device = device.path.is_block_device()
    source.set("dev" if is_device else "file", str(device.path))
    disk.set("type", "block" if is_device else "file")


def _cut_off(channel: ET.Element) -> None:
    """The guest has the port open: it must be there, with nobody behind it."""
    channel.set("type", "null")
    for found in channel.findall("source"):
        channel.remove(found)


def _child(whole: ET.Element, path: str) -> ET.Element:
    found = whole.find(path)
    if found is None:
        raise LibvirtError(f"the saved machine's XML has no {path}")
    return found
