"""The guest images in the cache folder: found, chosen and removed."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from msgspec import Struct

from vc_agent_grpc.image.errors import ImageError
from vc_core.driver_kit.ownership import readable_folder

MANIFEST = "manifest.json"
_CURRENT = "current"
AGENT, STAND_IN = "vc-agent", "vc-stand-in"
FILTER = "seccomp.bpf"


class Guest(Struct, frozen=True):
    """One guest image.

    Attributes:
        id: the first 16 hex digits of the SHA-256 over kernel and initrd.
        kernel: an ELF `vmlinux` with a PVH entry.
        initrd: an uncompressed newc archive: unpacking costs more than reading, under emulation.
        program: the agent alone, to run it without a kernel; None in images of older versions.
        stand_in: the program that stands in on the host for a process of a guest; None in images of
            older versions, and of an agent that was given as a program without one beside it.
        release: release of the kernel.
        inputs: its inputs, name to version or digest.
        size_bytes: total size of all files, in bytes.
        is_current: whether new pods use it.
        filter: the compiled default seccomp filter of containers; empty in images that were built
            without it or with another list.
        stand_in_options: names of the options that its stand-in takes; empty in images of older
            versions.
    """

    id: str
    kernel: Path
    initrd: Path
    program: Path | None
    release: str
    inputs: dict[str, str]
    size_bytes: int
    is_current: bool
    filter: bytes = b""
    stand_in: Path | None = None
    stand_in_options: tuple[str, ...] = ()


def current(cache: Path) -> Guest:
    """Returns the image for new pods.

    Raises:
        ImageError: none has been built.
    """
    for image in images(cache):
        if image.is_current:
            return image
    raise ImageError("no guest image has been built; run 'vc guest build'")


def is_whole(image: Guest) -> bool:
    """Returns whether kernel and initrd are unchanged: their digest is the image's id."""
    digest = hashlib.sha256()
    try:
        for file in (image.kernel, image.initrd):
            digest.update(file.read_bytes())
    except OSError:
        return False
    return digest.hexdigest()[:16] == image.id


def find(cache: Path, prefix: str) -> Guest:
    """Returns the image whose id begins with `prefix`.

    Raises:
        ImageError: no image or more than one matches.
    """
    found = [image for image in images(cache) if image.id.startswith(prefix)]
    if len(found) != 1:
        known = ", ".join(image.id for image in images(cache)) or "none"
        raise ImageError(
            f"{len(found) or 'no'} guest images begin with {prefix!r}; there are: {known}"
        )
    return found[0]


def images(cache: Path) -> tuple[Guest, ...]:
    """Returns all images, the current one first; skips folders that are no image."""
    folder = cache / "guest"
    pointer = folder / _CURRENT
    chosen = pointer.read_text().strip() if pointer.exists() else ""
    found = [_read(path, chosen) for path in sorted(folder.glob(f"*/{MANIFEST}"))]
    return tuple(sorted(found, key=lambda image: not image.is_current))


def remove(cache: Path, prefix: str) -> Guest:
    """Deletes one image.

    Raises:
        ImageError: as `find`.
    """
    with locked(cache):
        image = find(cache, prefix)
        if image.is_current:
            (cache / "guest" / _CURRENT).unlink()
        shutil.rmtree(cache / "guest" / image.id)
    return image


def make_current(cache: Path, identity: str) -> Guest:
    """Makes new pods use an image; returns it."""
    pointer = cache / "guest" / _CURRENT
    half = pointer.with_name(f".{_CURRENT}.{os.getpid()}")
    half.write_text(identity + "\n")
    half.chmod(0o644)
    half.replace(pointer)
    return current(cache)


def _read(manifest: Path, chosen: str) -> Guest:
    folder = manifest.parent
    told = json.loads(manifest.read_text())
    kernel_file, initrd, program, filter_file, stand_in = files = tuple(
        folder / name for name in ("vmlinux", "initrd", AGENT, FILTER, STAND_IN)
    )
    size = sum(file.stat().st_size for file in files if file.exists())
    found = program if program.exists() else None
    is_current = told["id"] == chosen
    known = filter_file.read_bytes() if is_current and filter_file.exists() else b""
    return Guest(
        told["id"],
        kernel_file,
        initrd,
        found,
        told["release"],
        told["inputs"],
        size,
        is_current,
        known,
        stand_in if stand_in.exists() else None,
        tuple(told.get("stand_in_options", ())),
    )


@contextlib.contextmanager
def locked(cache: Path) -> Iterator[None]:
    """Locks the images for a block that changes them."""
    folder = readable_folder(cache / "guest")
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
