"""Single files bound into a folder of the pod, under names that nobody can guess."""

from __future__ import annotations

import ctypes
import os
import re
import secrets
from pathlib import Path

from vc_core.spec.errors import StorageError

# Numbers of mount(2) and umount2(2).
_MS_BIND = 4096
_MNT_DETACH = 2
_OCTAL = re.compile(r"\\([0-7]{3})")
_libc = ctypes.CDLL(None, use_errno=True)


def add(source: Path, folder: Path) -> str:
    """Binds a file into the folder; gives the name it has there.

    Raises:
        StorageError: the kernel refused.
    """
    name = secrets.token_hex(8)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    target = folder / name
    target.touch(mode=0o600)
    if _libc.mount(os.fsencode(source.resolve()), os.fsencode(target), None, _MS_BIND, None) != 0:
        reason = os.strerror(ctypes.get_errno())
        target.unlink()
        raise StorageError(f"{source} cannot be bound into the pod: {reason}")
    return name


def remove(folder: Path, name: str) -> None:
    """Unbinds what `add` gave; what is gone is no error."""
    target = folder / name
    if not name or not target.exists():
        return
    if target in mounted_below(folder):
        _unmount(target)
    target.unlink()


def remove_all(folder: Path) -> None:
    """Unbinds whatever is bound in the folder, the last first, and removes the folder's files."""
    for target in reversed(mounted_below(folder)):
        _unmount(target)
    if folder.is_dir():
        for target in folder.iterdir():
            target.unlink()


def mounted_below(folder: Path) -> list[Path]:
    """Mount points in a folder, in the order of mounting. proc(5): blanks in mountinfo are octal escapes."""
    points = (line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines())
    decoded = (Path(_OCTAL.sub(lambda match: chr(int(match[1], 8)), point)) for point in points)
    real = folder.resolve()
    return [point for point in decoded if real in point.parents]


def _unmount(target: Path) -> None:
    if _libc.umount2(os.fsencode(target), _MNT_DETACH) != 0:
        raise StorageError(f"{target} cannot be unmounted: {os.strerror(ctypes.get_errno())}")
