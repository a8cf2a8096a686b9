"""Files and folders of the host bound into a folder of the pod, under names that nobody can guess. Root only."""

from __future__ import annotations

import ctypes
import errno
import os
import secrets
from pathlib import Path

from vc_core.engine import mountinfo
from vc_core.spec.errors import StorageError

# Numbers of mount(2), umount2(2) and mount_setattr(2).
_MS_BIND = 1 << 12
_MS_REC = 1 << 14
_MS_UNBINDABLE = 1 << 17
_MNT_DETACH = 2
_UMOUNT_NOFOLLOW = 8
_SYS_MOUNT_SETATTR = 442
_AT_FDCWD = -100
_AT_RECURSIVE = 0x8000
_MOUNT_ATTR_RDONLY = 1
_CGROUPS = ("cgroup", "cgroup2")
_libc = ctypes.CDLL(None, use_errno=True)


class _MountAttr(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint64) for name in ("attr_set", "attr_clr", "propagation", "userns_fd")]


def add(source: Path, folder: Path, read_only: bool, recursive: bool, name: str = "") -> str:
    """Binds a file or folder into the folder; gives the name it has there.

    Args:
        source: on this host.
        folder: of the pod.
        read_only: enforced here, for all that comes along.
        recursive: whether mounts below the source come along.
        name: that nobody else has; made up when empty.

    Raises:
        StorageError: the kernel refused; nothing is left of it.
    """
    name = name or secrets.token_hex(8)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    target = folder / name
    if source.is_dir():
        target.mkdir(mode=0o700)
    else:
        target.touch(mode=0o600)
    try:
        _bind(source.resolve(), target, read_only, recursive)
    except BaseException:
        remove(folder, name)
        raise
    return name


def remove(folder: Path, name: str) -> None:
    """Unbinds what `add` gave; what is gone is no error."""
    target = folder / name
    if name and os.path.lexists(target):
        _drop(target)


def remove_all(folder: Path) -> None:
    """Unbinds whatever is bound in the folder, and removes what it was bound on."""
    if folder.is_dir():
        for target in folder.iterdir():
            _drop(target)


def _bind(source: Path, target: Path, read_only: bool, recursive: bool) -> None:
    _attach(source, target, recursive)
    if read_only:
        attributes = _MountAttr(attr_set=_MOUNT_ATTR_RDONLY)
        size = ctypes.sizeof(attributes)
        where = os.fsencode(target)
        if _libc.syscall(_SYS_MOUNT_SETATTR, _AT_FDCWD, where, _AT_RECURSIVE, ctypes.byref(attributes), size) != 0:
            raise StorageError(f"{source} cannot be bound read-only: {os.strerror(ctypes.get_errno())}")


def _attach(source: Path, target: Path, recursive: bool) -> None:
    """With all that is mounted below but control groups: daemons look for those in the table of mounts, and would take
    ours, which go with the pod, for the host's own.
    """
    below = mountinfo.below(source) if recursive else []
    has_groups = any(one.fstype in _CGROUPS for one in below)
    _mount(os.fsencode(source), target, _MS_BIND | (_MS_REC if recursive and not has_groups else 0))
    # Private, or to unmount what came along would unmount it at its source, too. And not to be bound again: another
    # pod's bind of the host's root would bring it along, and keep its place busy.
    _mount(None, target, _MS_UNBINDABLE | _MS_REC)
    points = {one.point for one in below}
    for one in below if has_groups else ():
        inner = target / one.point.relative_to(source)
        is_outermost = not points & set(one.point.parents)
        if is_outermost and one.fstype not in _CGROUPS and inner.exists() and not _is_unbindable(one):
            _attach(one.point, inner, True)


def _is_unbindable(mount: mountinfo.MountPoint) -> bool:
    return "unbindable" in mount.tags


def _mount(source: bytes | None, target: Path, flags: int) -> None:
    if _libc.mount(source, os.fsencode(target), None, flags, None) != 0:
        what = os.fsdecode(source or b"it")
        raise StorageError(f"{what} cannot be bound into the pod: {os.strerror(ctypes.get_errno())}")


def _drop(target: Path) -> None:
    """Unbinds what is bound there, with all that came along, and removes an empty mount point, nothing else: rmdir(2)
    refuses a folder that still shows something. Whether anything is bound is for the kernel to say: what the table of
    mounts says may have changed since it was read.
    """
    while _libc.umount2(os.fsencode(target), _MNT_DETACH | _UMOUNT_NOFOLLOW) == 0:
        pass  # one may lie over another
    if (code := ctypes.get_errno()) != errno.EINVAL:  # which says: not a mount point
        raise StorageError(f"{target} cannot be unmounted: {os.strerror(code)}")
    if target.is_dir():
        target.rmdir()
    else:
        target.unlink()
