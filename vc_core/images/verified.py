"""Verifies the digest of an image's file, once per boot of the host and per change of the file.

<id>/verified.json    identity of the file when it was last verified; writable by the owner only

Reading a file of a hundred megabytes takes a fraction of a second, so a file with the same inode,
size and times is not read again. Its change time can be reset only by writing to the disk itself,
so a file is verified again after a boot.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from pathlib import Path

import msgspec

from vc_core.driver_kit.ownership import write_private_file
from vc_core.images.image import ImageError

_RECORD = "verified.json"
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class _Verified(msgspec.Struct, frozen=True):
    """A successful verification."""

    boot: str
    file: tuple[int, int, int, int, int]
    sha256: str


async def make_record(rootfs: Path) -> str:
    """Record a new file as verified, and return its digest in hex."""
    before = _identity(rootfs)
    digest = await asyncio.to_thread(_digest, rootfs)
    _write(rootfs, before, digest)
    return digest


async def verify(rootfs: Path, digest: str) -> None:
    """Verify the digest of a file, unless it is unchanged since its last verification.

    Args:
        rootfs: the file.
        digest: in hex; empty for an image of an older version, whose digest is recorded at its
            first use.

    Raises:
        ImageError: the digest differs.
    """
    last = _read(rootfs)
    identity = _identity(rootfs)
    expected = digest or (last.sha256 if last is not None else "")
    if last is not None and (last.boot, last.file, last.sha256) == (_boot(), identity, expected):
        return
    actual = await asyncio.to_thread(_digest, rootfs)
    if expected and actual != expected:
        (rootfs.parent / _RECORD).unlink(missing_ok=True)
        name = rootfs.parent.name[:12]
        raise ImageError(
            f"the image in {rootfs.parent} is damaged: {rootfs.name} has digest {actual[:12]}…, "
            f"not {expected[:12]}…; run 'vc image rm {name}' and pull it again"
        )
    _write(rootfs, identity, actual)


def _identity(file: Path) -> tuple[int, int, int, int, int]:
    stat = file.stat()
    return (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)


def _boot() -> str:
    return _BOOT_ID.read_text().strip()


def _digest(file: Path) -> str:
    try:
        with file.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise ImageError(f"{file} cannot be read: {error.strerror}") from error


def _read(rootfs: Path) -> _Verified | None:
    try:
        return msgspec.json.decode((rootfs.parent / _RECORD).read_bytes(), type=_Verified)
    except (OSError, msgspec.MsgspecError):
        return None  # the file is verified again


def _write(rootfs: Path, identity: tuple[int, int, int, int, int], digest: str) -> None:
    half = rootfs.parent / f".{_RECORD}.{os.getpid()}"
    write_private_file(half, msgspec.json.encode(_Verified(_boot(), identity, digest)))
    half.replace(rootfs.parent / _RECORD)
