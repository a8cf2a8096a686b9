"""System calls of the jail that Python lacks. Each affects the calling thread only.

Imports only a few modules of the standard library, because a process that enters the jail starts
with this one.
"""

from __future__ import annotations

import ctypes
import os

# System call numbers that are the same on all architectures.
_OPEN_TREE, _MOVE_MOUNT, _FSOPEN, _FSCONFIG, _FSMOUNT, _CLOSE_RANGE = 428, 429, 430, 431, 432, 436
_MOUNT_SETATTR = 442
_AT_EMPTY_PATH, _AT_RECURSIVE = 0x1000, 0x8000
_MOVE_MOUNT_BOTH_EMPTY = 0x04 | 0x40
_FSCONFIG_SET_STRING, _FSCONFIG_CMD_CREATE = 1, 6
_MNT_DETACH, _UMOUNT_NOFOLLOW = 2, 8
_CLOSE_RANGE_UNSHARE, _CLOSE_RANGE_CLOEXEC = 2, 4
_PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS, _SECCOMP_MODE_FILTER = 22, 38, 2
_PR_SET_THP_DISABLE, _PR_GET_THP_DISABLE = 41, 42
_PR_CAPBSET_READ, _PR_CAPBSET_DROP, _PR_CAP_AMBIENT, _AMBIENT_CLEAR_ALL = 23, 24, 47, 4
_CAPABILITY_VERSION = 0x20080522
_EPERM, _ENOENT, _EINVAL = 1, 2, 22
_INSTRUCTION_BYTES = 8

NEWUSER, NEWNS, FS = 0x10000000, 0x00020000, 0x00000200
"""Flags of unshare(2): a user namespace, a mount namespace, the working folder and umask."""
OTHER_NAMESPACES = 0x20000000 | 0x40000000 | 0x08000000 | 0x04000000
"""Pid, network, IPC and UTS namespaces."""
RDONLY, NOSUID, NODEV, NOEXEC = 1, 2, 4, 8
"""Attributes of mounts, mount_setattr(2)."""
SLAVE, PRIVATE = 1 << 19, 1 << 18
"""The propagation of mounts."""

_libc = ctypes.CDLL(None, use_errno=True)
_syscall = _libc.syscall
_syscall.restype = ctypes.c_long


class Opened:
    """File descriptors that are closed at the end of a block."""

    def __init__(self) -> None:
        self._descriptors: list[int] = []

    def __enter__(self) -> Opened:  # noqa: PYI034 (typing.Self takes long to import)
        return self

    def add(self, descriptor: int) -> int:
        """Adds a descriptor, which is closed with the others."""
        self._descriptors.append(descriptor)
        return descriptor

    def path(self, path: str, flags: int = 0, folder: int | None = None) -> int:
        """Opens a file or folder with O_PATH."""
        return self.add(os.open(path, os.O_PATH | os.O_CLOEXEC | flags, dir_fd=folder))

    def __exit__(self, *_: object) -> None:
        for descriptor in self._descriptors:
            os.close(descriptor)


def unshare(flags: int) -> None:
    """Moves this thread into new namespaces."""
    _check(_libc.unshare(flags))


def join(namespace: int, kind: int) -> None:
    """Moves this thread to another namespace."""
    _check(_libc.setns(namespace, kind))


def keep_descriptors_below(number: int) -> None:
    """Marks all others to be closed on exec, in a descriptor table of this thread."""
    _call(_CLOSE_RANGE, number, 0xFFFFFFFF, _CLOSE_RANGE_UNSHARE | _CLOSE_RANGE_CLOEXEC)


# --- mounts ---------------------------------------------------------------------------------


class _MountAttr(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint64) for name in ("set", "clear", "propagation", "userns")]


def clone(origin: int, recursive: bool) -> int:
    """Returns a detached mount of an open file or folder."""
    flags = os.O_CLOEXEC | 1 | _AT_EMPTY_PATH | (_AT_RECURSIVE if recursive else 0)
    return _call(_OPEN_TREE, origin, b"", flags)


def attach(tree: int, point: int) -> None:
    """Attaches a detached mount, or moves an attached one."""
    _call(_MOVE_MOUNT, tree, b"", point, b"", _MOVE_MOUNT_BOTH_EMPTY)


def change(mount: int, attributes: int, propagation: int, recursive: bool = True) -> None:
    """Adds attributes to a mount, and to those below."""
    values = _MountAttr(set=attributes, propagation=propagation)
    flags = _AT_EMPTY_PATH | (_AT_RECURSIVE if recursive else 0)
    _call(_MOUNT_SETATTR, mount, b"", flags, ctypes.byref(values), ctypes.sizeof(values))


def tmpfs(size: str) -> int:
    """Returns a detached tmpfs."""
    with Opened() as opened:
        context = opened.add(_call(_FSOPEN, b"tmpfs", 1))
        for name, value in ((b"size", size.encode()), (b"mode", b"0755")):
            _call(_FSCONFIG, context, _FSCONFIG_SET_STRING, name, value, 0)
        _call(_FSCONFIG, context, _FSCONFIG_CMD_CREATE, None, None, 0)
        return _call(_FSMOUNT, context, 1, NOSUID | NODEV | NOEXEC)


def change_root(root: int) -> None:
    """Makes an attached mount the root, and detaches the old one."""
    os.fchdir(root)
    _check(_libc.pivot_root(b".", b"."))
    _check(_libc.umount2(b".", _MNT_DETACH))


def unmount(path: str) -> None:
    """Unmounts what is mounted at a path. Nothing there is no error."""
    if _libc.umount2(os.fsencode(path), _MNT_DETACH | _UMOUNT_NOFOLLOW) == 0:
        return
    if ctypes.get_errno() not in (_EINVAL, _ENOENT):
        _check(-1)


# --- privileges -----------------------------------------------------------------------------


class _Header(ctypes.Structure):
    _fields_ = [("version", ctypes.c_uint32), ("pid", ctypes.c_int)]


class _Sets(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint32) for name in ("effective", "permitted", "inheritable")]


class _Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p)]


def keep_capabilities(kept: int) -> None:
    """Drops all other capabilities, also from the bounding set, which limits programs of root.

    Args:
        kept: a mask by number.
    """
    number = 0
    while _libc.prctl(_PR_CAPBSET_READ, number, 0, 0, 0) >= 0:  # fails for the first unknown one
        if not kept >> number & 1 and _libc.prctl(_PR_CAPBSET_DROP, number, 0, 0, 0) != 0:
            if ctypes.get_errno() != _EPERM or os.geteuid() == 0:
                _check(-1)
            break  # neither capabilities nor root: with no_new_privs no program can get one
        number += 1
    _check(_libc.prctl(_PR_CAP_AMBIENT, _AMBIENT_CLEAR_ALL, 0, 0, 0))
    header, sets = _Header(_CAPABILITY_VERSION, 0), (_Sets * 2)()
    _check(_libc.capget(ctypes.byref(header), sets))
    for half in range(2):
        mask = kept >> 32 * half & 0xFFFFFFFF & sets[half].permitted
        sets[half] = _Sets(mask, mask, 0)
    _check(_libc.capset(ctypes.byref(header), sets))


def set_no_new_privileges() -> None:
    """Prevents executed programs from gaining privileges: set-uid bits have no effect."""
    _check(_libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))


def allow_huge_pages(allowed: bool) -> bool:
    """Sets whether this process and the programs it starts get transparent huge pages.

    Returns:
        Whether it got them before.
    """
    before = _libc.prctl(_PR_GET_THP_DISABLE, 0, 0, 0, 0)
    if before < 0:
        _check(before)
    _check(_libc.prctl(_PR_SET_THP_DISABLE, int(not allowed), 0, 0, 0))
    return bool(before == 0)


def load_filter(program: bytes) -> None:
    """Loads a seccomp filter."""
    values = _Program(len(program) // _INSTRUCTION_BYTES, program)
    _check(_libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(values), 0, 0))


def write(path: str, text: str) -> None:
    """Writes a file of the kernel."""
    with open(path, "w") as file:  # noqa: PTH123 (pathlib takes long to import)
        file.write(text)


def _check(outcome: int) -> None:
    if outcome != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def _call(number: int, *arguments: object) -> int:
    # Plain integers would be passed as 32 bits.
    words = [ctypes.c_long(word) if isinstance(word, int) else word for word in arguments]
    outcome = int(_syscall(ctypes.c_long(number), *words))
    if outcome < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return outcome
