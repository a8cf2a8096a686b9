"""Command-line options of a container's root file system, mounts and devices."""

from __future__ import annotations

import re
from pathlib import Path

import click

from vc_core.cli.units import SIZE
from vc_core.spec.errors import InvalidRequest
from vc_core.spec.values import HostDevice, Rootfs, RootfsMode

_PCI_ADDRESS = r"[0-9a-f]{4,}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]"
_IS_READ_ONLY = {"ro": True, "r": True, "rm": True, "rw": False, "rwm": False}

STORAGE_OPTIONS = (
    click.option(
        "--rootfs",
        default="",
        metavar="PATH[:ro|:rw]",
        show_default="/",
        help="Root file system: a directory, image file or block device; changes are discarded "
        "unless :rw.",
    ),
    click.option(
        "--volume",
        "-v",
        "--mount",
        "mounts",
        multiple=True,
        metavar="SRC:DST[:OPTIONS]",
        help="Mount a host path or a named volume, e.g. ./data:/data:ro.",
    ),
    click.option(
        "--tmpfs",
        multiple=True,
        metavar="DST[:OPTIONS]",
        help="Mount a tmpfs, e.g. /x:size=64m,mode=1777.",
    ),
    click.option(
        "--disk",
        type=SIZE,
        default=0,
        metavar="SIZE",
        help="Write changes to a disk of this size, not to guest memory.",
    ),
    click.option("--read-only", is_flag=True, help="Mount the root file system read-only."),
    click.option(
        "--shm-size",
        type=SIZE,
        default="64m",
        show_default=True,
        metavar="SIZE",
        help="Size of /dev/shm.",
    ),
    click.option(
        "--device",
        "devices",
        multiple=True,
        metavar="DEVICE[:DST][:ro]",
        help="Add a host device, image file, PCI address or "
        "vhost-user-{net,blk,scsi}=SOCKET[:DST].",
    ),
)


def rootfs(text: str, read_only: bool) -> Rootfs:
    """Read --rootfs and --read-only.

    Raises:
        InvalidRequest: --read-only is combined with :rw.
    """
    for suffix, mode in ((":rw", RootfsMode.READ_WRITE), (":ro", RootfsMode.READ_ONLY)):
        if text.endswith(suffix):
            if read_only and mode is RootfsMode.READ_WRITE:
                raise InvalidRequest(
                    "--read-only and --rootfs PATH:rw contradict each other; give one of them"
                )
            return Rootfs(path=Path(text.removesuffix(suffix)).absolute(), mode=mode)
    return Rootfs(
        path=Path(text).absolute(), mode=RootfsMode.READ_ONLY if read_only else RootfsMode.OVERLAY
    )


def device(text: str) -> HostDevice:
    """Read one --device.

    Raises:
        InvalidRequest: it has more than two paths, or a relative destination.
    """
    kind, equals, path = text.partition("=")
    if equals and kind.startswith("vhost-user-"):
        path, _, destination = path.partition(":")
        return HostDevice(path=Path(path).absolute(), destination=destination, kind=kind)
    if re.fullmatch(_PCI_ADDRESS, text):
        return HostDevice(path=Path("/sys/bus/pci/devices") / text, destination="")
    parts = text.split(":")
    is_read_only = _IS_READ_ONLY.get(parts[-1]) if len(parts) > 1 else None
    if is_read_only is not None:
        parts.pop()
    if len(parts) > 2 or not parts[-1].startswith("/"):
        raise InvalidRequest(f"--device {text!r} is not DEVICE, DEVICE:DST or DEVICE:DST:ro")
    return HostDevice(
        path=Path(parts[0]).absolute(), destination=parts[-1], read_only=bool(is_read_only)
    )
