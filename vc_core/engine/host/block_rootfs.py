"""Finds the block device of a root file system, and whether a guest can mount that by itself."""

from __future__ import annotations

import ctypes
import fcntl
import os
import struct
from collections.abc import Set as AbstractSet
from pathlib import Path

from msgspec import Struct

from vc_core.driver_kit import mountinfo
from vc_core.spec.errors import InvalidRequest, StorageError
from vc_core.spec.values import Capability, ContainerSpec, Rootfs, RootfsMode

# The file systems that the guest's kernel can mount, by their kernel names. No xfs: its module
# alone would make every guest a quarter larger; such a rootfs is shared as a folder.
_KNOWN = {"ext2": "ext4", "ext3": "ext4", "ext4": "ext4", "erofs": "erofs"}
# Magic numbers of superblocks: offset and bytes. Documentation/filesystems of Linux: ext4, erofs.
_MAGIC = {"ext4": (0x438, b"\x53\xef"), "erofs": (1024, b"\xe2\xe1\xf5\xe0")}
# linux/ext4.h: writes the contents of the journal to their final places.
_EXT4_IOC_CHECKPOINT = 0x4004662B
_NEEDED = {Capability.DRIVE_PLUG, Capability.DRIVE}
_libc = ctypes.CDLL(None, use_errno=True)


class Block(Struct, frozen=True):
    """A root file system on a block device or in an image file.

    Attributes:
        device: the device or file.
        fstype: file system type, as the guest's kernel names it.
        subpath: path of the root file system below the device's root; empty for the root itself.
        mounted_at: a mount point where the host may write to it; None when there is none.
    """

    device: Path
    fstype: str
    subpath: str = ""
    mounted_at: Path | None = None


def chosen(
    spec: ContainerSpec, capabilities: AbstractSet[Capability], is_disabled: bool
) -> Block | None:
    """Returns the device or image of the root file system, when the guest is to mount it.

    Args:
        spec: the container.
        capabilities: combined capabilities of hypervisor and agent.
        is_disabled: whether folders are always shared.

    Raises:
        InvalidRequest: it is an unusable image or device.
    """
    path = spec.rootfs.path
    is_able = capabilities >= _NEEDED
    if path.is_dir() and (is_disabled or not is_able):
        return None
    if is_disabled:
        raise InvalidRequest(
            f"the rootfs {path} is not a directory, and pod.disable_block_device_use is set"
        )
    if not is_able:
        raise InvalidRequest(
            f"the rootfs {path} is not a directory, and the chosen plugins cannot plug drives"
        )
    return of(spec.rootfs)


def of(rootfs: Rootfs) -> Block | None:
    """Returns what a guest could mount by itself; None for a folder that must be shared.

    A folder must be shared when its device would show the guest something else: when there are
    mounts below it, when the container may write to a file system that the host has mounted, when
    it is the host's own root.

    Raises:
        InvalidRequest: a device or image without a supported file system, or one that is in use.
    """
    if not rootfs.path.is_dir():
        return _of_image(rootfs)
    table = mountinfo.points()
    held = mountinfo.holding(rootfs.path, table)
    is_written_here = "ro" not in held.super_options
    is_hosts_own = (
        held.device == mountinfo.holding(Path("/"), table).device
    )  # also where a part of it is bound elsewhere
    if is_hosts_own or held.fstype not in _KNOWN or rootfs.mode is RootfsMode.READ_WRITE:
        return None
    if is_written_here and os.geteuid() != 0:
        return None  # only root can flush its journal
    device = _device(held.device)
    if device is None or not os.access(device, os.R_OK) or mountinfo.below(rootfs.path, table):
        return None
    inside = Path(held.root) / rootfs.path.resolve().relative_to(held.point)
    subpath = str(inside.relative_to("/"))
    written_at = held.point if is_written_here else None
    return Block(device, _KNOWN[held.fstype], "" if subpath == "." else subpath, written_at)


def flush(block: Block) -> None:
    """Flushes the host's writes to the device, for a guest that mounts it without its journal.

    Raises:
        StorageError: the kernel refused.
    """
    if block.mounted_at is None:
        return
    handle = os.open(block.mounted_at, os.O_RDONLY | os.O_DIRECTORY)
    try:
        if _libc.syncfs(handle) != 0:
            raise StorageError(
                f"{block.mounted_at} cannot be synced: {os.strerror(ctypes.get_errno())}"
            )
        if block.fstype == "ext4":
            fcntl.ioctl(handle, _EXT4_IOC_CHECKPOINT, struct.pack("I", 0))
    except OSError as error:
        raise StorageError(
            f"the journal of {block.mounted_at} cannot be emptied: {error.strerror}"
        ) from error
    finally:
        os.close(handle)


def _of_image(rootfs: Rootfs) -> Block:
    path = rootfs.path
    if path.is_block_device():
        number = path.stat().st_rdev
        name = f"{os.major(number)}:{os.minor(number)}"
        used = [
            str(one.point)
            for one in mountinfo.points()
            if one.device == name and "rw" in one.super_options
        ]
        if used:
            raise InvalidRequest(
                f"the rootfs {path} is mounted on {used[0]}; "
                "unmount it there, or give that directory"
            )
    try:
        with path.open("rb") as stream:
            head = stream.read(4096)
    except OSError as error:
        raise InvalidRequest(f"the rootfs {path} cannot be read: {error.strerror}") from error
    for fstype, (offset, magic) in _MAGIC.items():
        if head[offset : offset + len(magic)] == magic:
            if fstype == "erofs" and rootfs.mode is RootfsMode.READ_WRITE:
                raise InvalidRequest(f"the rootfs {path} is erofs, which is read-only; remove :rw")
            return Block(path, fstype)
    raise InvalidRequest(
        f"the rootfs {path} has no file system that a guest can mount ({', '.join(_MAGIC)})"
    )


def _device(number: str) -> Path | None:
    """Returns the node of "major:minor"; None for file systems without a device.

    See sysfs(5), dev/block.
    """
    uevent = Path(f"/sys/dev/block/{number}/uevent")
    if not uevent.exists():
        return None
    fields = dict(line.split("=", 1) for line in uevent.read_text().splitlines())
    node = Path("/dev") / fields.get("DEVNAME", "")
    return node if node.is_block_device() else None
