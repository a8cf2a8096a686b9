"""System calls for mounts that take only descriptors. All are in Linux 5.12 and later.

A path that another user can change is resolved only once: it is opened without following links, and
source and target of a mount are given to the kernel as descriptors.
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# Numbers of system calls; the same on all architectures.
_OPEN_TREE, _MOVE_MOUNT, _FSOPEN, _FSCONFIG, _FSMOUNT, _OPENAT2, _MOUNT_SETATTR = (
    428,
    429,
    430,
    431,
    432,
    437,
    442,
)
_AT_FDCWD = -100
_AT_EMPTY_PATH = 0x1000
_AT_RECURSIVE = 0x8000
_OPEN_TREE_CLONE = 1
_OPEN_TREE_CLOEXEC = os.O_CLOEXEC
_MOVE_MOUNT_BOTH_EMPTY = 0x04 | 0x40
_FSCONFIG_SET_STRING, _FSCONFIG_CMD_CREATE = 1, 6
_FSOPEN_CLOEXEC = _FSMOUNT_CLOEXEC = 1
_RESOLVE_NO_XDEV, _RESOLVE_NO_MAGICLINKS, _RESOLVE_NO_SYMLINKS, _RESOLVE_BENEATH = 1, 2, 4, 8
_MNT_DETACH = 2
_UMOUNT_NOFOLLOW = 8

RDONLY, NOSUID, NODEV, NOEXEC = 1, 2, 4, 8
"""Attributes of mounts (mount_setattr(2))."""
PRIVATE, SHARED, UNBINDABLE, SLAVE = 1 << 18, 1 << 20, 1 << 17, 1 << 19
"""The propagation types of mounts."""

_libc = ctypes.CDLL(None, use_errno=True)


class _MountAttr(ctypes.Structure):
    _fields_ = [
        (name, ctypes.c_uint64) for name in ("attr_set", "attr_clr", "propagation", "userns_fd")
    ]


class _OpenHow(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint64) for name in ("flags", "mode", "resolve")]


def open_plain(
    path: str | Path, flags: int = os.O_PATH, at: int = _AT_FDCWD, stays_in_mount: bool = False
) -> int:
    """Opens a path without following links; returns a descriptor.

    Args:
        path: absolute, or relative to `at`, below which it then must stay.
        flags: flags of open(2).
        at: a descriptor of a folder.
        stays_in_mount: whether mount points in the path are refused, too.

    Raises:
        OSError: ELOOP for a link, EXDEV for a path that leads elsewhere.
    """
    resolve = _RESOLVE_NO_SYMLINKS | _RESOLVE_NO_MAGICLINKS
    resolve |= _RESOLVE_NO_XDEV if stays_in_mount else 0
    resolve |= _RESOLVE_BENEATH if at != _AT_FDCWD else 0
    how = _OpenHow(flags=flags | os.O_CLOEXEC, resolve=resolve)
    return _call(_OPENAT2, at, _bytes(path), ctypes.byref(how), ctypes.sizeof(how), about=path)


@contextmanager
def opened(descriptor: int) -> Iterator[int]:
    """Closes a descriptor at the end of a block."""
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def clone(descriptor: int, recursive: bool = False) -> int:
    """Returns a detached mount of an open file or folder; it is gone when closed before `attach`.

    Args:
        descriptor: descriptor of a file or folder.
        recursive: whether mounts below are included.
    """
    flags = (
        _OPEN_TREE_CLONE | _OPEN_TREE_CLOEXEC | _AT_EMPTY_PATH | (_AT_RECURSIVE if recursive else 0)
    )
    return _call(_OPEN_TREE, descriptor, b"", flags)


def attach(mount: int, target: int) -> None:
    """Attaches a detached mount to an open target. The descriptor of the mount stays valid."""
    _call(_MOVE_MOUNT, mount, b"", target, b"", _MOVE_MOUNT_BOTH_EMPTY)


def change(
    mount: int, set_: int = 0, clear: int = 0, propagation: int = 0, recursive: bool = True
) -> None:
    """Sets and clears attributes of a mount, attached or not.

    Args:
        mount: a descriptor of its root.
        set_: attributes to set.
        clear: attributes to clear.
        propagation: one of the constants above; 0 leaves it unchanged.
        recursive: whether mounts below it are changed, too: all of them or none.
    """
    attributes = _MountAttr(attr_set=set_, attr_clr=clear, propagation=propagation)
    flags = _AT_EMPTY_PATH | (_AT_RECURSIVE if recursive else 0)
    _call(_MOUNT_SETATTR, mount, b"", flags, ctypes.byref(attributes), ctypes.sizeof(attributes))


def new_file_system(kind: str, attributes: int, **options: str) -> int:
    """Returns a new file system that is not attached.

    Args:
        kind: "tmpfs", "overlay".
        attributes: attributes of its mount.
        options: options of the file system.
    """
    with opened(_call(_FSOPEN, kind.encode(), _FSOPEN_CLOEXEC, about=kind)) as context:
        for name, value in options.items():
            _call(
                _FSCONFIG,
                context,
                _FSCONFIG_SET_STRING,
                name.encode(),
                os.fsencode(value),
                0,
                about=kind,
            )
        _call(_FSCONFIG, context, _FSCONFIG_CMD_CREATE, None, None, 0, about=kind)
        return _call(_FSMOUNT, context, _FSMOUNT_CLOEXEC, attributes)


def unmount(path: str | Path) -> bool:
    """Unmounts what is mounted at a path and below; returns False when nothing is mounted.

    Of stacked mounts only the uppermost. Processes with open files in it keep access to them.

    Raises:
        OSError: the kernel refused.
    """
    if _libc.umount2(_bytes(path), _MNT_DETACH | _UMOUNT_NOFOLLOW) == 0:
        return True
    code = ctypes.get_errno()
    if code in (errno.EINVAL, errno.ENOENT):  # not a mount point, or not there
        return False
    raise OSError(code, os.strerror(code), os.fspath(path))


def own_namespace() -> None:
    """Moves this thread into a mount namespace of its own, without propagation to others."""
    clone_newns, clone_fs = 0x00020000, 0x00000200
    if _libc.unshare(clone_newns | clone_fs) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    with opened(os.open("/", os.O_PATH | os.O_CLOEXEC)) as root:
        change(root, propagation=SLAVE)


def mount_id(descriptor: int) -> int:
    """Returns the id of the mount that a descriptor is on (proc(5): fdinfo)."""
    lines = Path(f"/proc/thread-self/fdinfo/{descriptor}").read_text(encoding="ascii").splitlines()
    fields = dict(line.split(":", 1) for line in lines if ":" in line)
    return int(fields["mnt_id"])


def _call(number: int, *arguments: object, about: object = "") -> int:
    # Plain integers would be passed as 32 bits.
    words = [ctypes.c_long(one) if isinstance(one, int) else one for one in arguments]
    outcome = int(_syscall(ctypes.c_long(number), *words))
    if outcome < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), str(about) or None)
    return outcome


_syscall = _libc.syscall
_syscall.restype = ctypes.c_long


def _bytes(path: str | Path) -> bytes:
    return os.fsencode(path)
