"""Whether an image's file is what was made: by its digest, once for each boot of the host and each change of the file.

<id>/verified.json    what the file was when its digest was last compared; beside it, where nobody but its owner writes

To read a file of a hundred megabytes takes a part of a second, so it is not read again while the kernel says that it is
the same: its times of change can be set back only by who writes to the disk itself, and that is why a boot ends it.
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
    """A comparison that was good."""

    boot: str
    file: tuple[int, int, int, int, int]
    sha256: str


async def make_record(rootfs: Path) -> str:
    """Notes a file that was just made; gives its digest, in hex."""
    before = _identity(rootfs)
    digest = await asyncio.to_thread(_digest, rootfs)
    _write(rootfs, before, digest)
    return digest


async def verify(rootfs: Path, digest: str) -> None:
    """Compares the file with its digest, unless it is the same since that was done.

    Args:
        rootfs: the file.
        digest: in hex; empty for an image that an older version has made: it is to be what it was
            at its first use.

    Raises:
        ImageError: it is not.
    """
    known = _read(rootfs)
    identity = _identity(rootfs)
    wanted = digest or (known.sha256 if known is not None else "")
    if known is not None and (known.boot, known.file, known.sha256) == (_boot(), identity, wanted):
        return
    found = await asyncio.to_thread(_digest, rootfs)
    if wanted and found != wanted:
        (rootfs.parent / _RECORD).unlink(missing_ok=True)
        name = rootfs.parent.name[:12]
        raise ImageError(
            f"the image in {rootfs.parent} is damaged: {rootfs.name} has the digest {found[:12]}…, not "
            f"{wanted[:12]}…; 'vc image rm {name}' removes it, 'vc image pull' brings it again"
        )
    _write(rootfs, identity, found)


def _identity(file: Path) -> tuple[int, int, int, int, int]:
    found = file.stat()
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


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
        return None  # then the file is read


def _write(rootfs: Path, identity: tuple[int, int, int, int, int], digest: str) -> None:
    half = rootfs.parent / f".{_RECORD}.{os.getpid()}"
    write_private_file(half, msgspec.json.encode(_Verified(_boot(), identity, digest)))
    half.replace(rootfs.parent / _RECORD)
