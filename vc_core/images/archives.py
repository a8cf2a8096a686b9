"""Decompresses archives, and detects the format of a tar archive from its members.

A Docker archive has a manifest.json and an OCI archive an oci-layout, anywhere in the archive, as
writers differ in the order of members. A root file system has a directory for programs. Any other
archive is of no known format.
"""

from __future__ import annotations

import enum
import io
import json
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vc_core.images import programs
from vc_core.images.image import ImageError
from vc_core.spec.errors import InvalidRequest

# The first bytes of a file, and the program that decompresses it.
_COMPRESSIONS = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ\x00": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
}
# The first of the sixteen magic numbers of a skippable frame, with which a zstd file may begin.
_SKIPPABLE = 0x184D2A50
_PROGRAM_FOLDERS = ("bin", "sbin", "usr")
_MAX_READ = 4 << 20  # of one header or manifest
_MAX_HEADERS = 32 << 20  # read in total to detect the format
_SHOWN_NAMES = 4


class ArchiveFormat(enum.StrEnum):
    """Format of a tar archive."""

    ROOTFS = "rootfs"  # the files of a root file system
    DOCKER = "docker-archive"  # images in the format of docker save
    OCI = "oci-archive"  # an OCI layout


@dataclass(frozen=True)
class Contents:
    """Contents of an archive.

    Attributes:
        format: None if it is unknown.
        images: names of each image of a Docker archive.
        names: the first few top-level names, for messages.
    """

    format: ArchiveFormat | None
    images: tuple[tuple[str, ...], ...] = ()
    names: tuple[str, ...] = ()


def compression(file: Path) -> str:
    """Return the program that decompresses a file; empty if it is not compressed."""
    with file.open("rb") as stream:
        head = stream.read(6)
    if head[1:4] == b"\x2a\x4d\x18" and int.from_bytes(head[:4], "little") & ~0xF == _SKIPPABLE:
        return "zstd"
    return next((program for magic, program in _COMPRESSIONS.items() if head.startswith(magic)), "")


async def decompress(file: Path, into: Path) -> Path:
    """Decompress a file.

    Returns:
        `into`, or the file itself if it is not compressed.

    Raises:
        ImageError: it is damaged, the program is missing, or the disk is full.
    """
    program = compression(file)
    if not program:
        return file
    await programs.run(program, "-dc", file, output=into)
    return into


def examine(file: Path, name: str) -> Contents:
    """Detect the format of an uncompressed tar archive.

    Args:
        file: the archive.
        name: name of the archive for messages.

    Raises:
        InvalidRequest: it is not a tar archive, or its headers are too large.
    """
    names: dict[str, None] = {}
    try:
        with _Bounded(file) as stream, tarfile.open(fileobj=stream, mode="r:") as archive:
            for member in archive:
                path = member.name.removeprefix("./").lstrip("/")
                top = path.partition("/")[0]
                if top in _PROGRAM_FOLDERS:
                    return Contents(ArchiveFormat.ROOTFS)
                if path == "oci-layout" and "imageLayoutVersion" in _object(archive, member):
                    return Contents(ArchiveFormat.OCI)
                if path == "manifest.json" and (
                    images := _docker_images(_document(archive, member))
                ):
                    return Contents(ArchiveFormat.DOCKER, images)
                if len(names) < _SHOWN_NAMES and top not in ("", "."):
                    names[top] = None
    except (tarfile.TarError, EOFError, OSError) as error:
        raise InvalidRequest(
            f"{name} is neither a directory nor a tar archive "
            f"(plain or compressed with gzip, bzip2, xz or zstd): {error}"
        ) from error
    return Contents(None, names=tuple(names))


def chosen(contents: Contents, tag: str, name: str) -> int:
    """The number of the image of a docker archive that has a name.

    Args:
        contents: of the archive.
        tag: the name; may be empty when there is only one image.
        name: what the archive is called in messages.

    Raises:
        ImageError: there is none, or there are several.
    """
    fitting = [
        number
        for number, names in enumerate(contents.images)
        if not tag or _full(tag) in [_full(one) for one in names]
    ]
    if len(fitting) != 1:
        known = ", ".join(sorted(one for names in contents.images for one in names)) or "none"
        raise ImageError(
            f"{name} has {len(fitting)} images {tag or 'to choose from'}; "
            f"select one with --tag: {known}"
        )
    return fitting[0]


def _document(archive: tarfile.TarFile, member: tarfile.TarInfo) -> Any:
    """Parse a member as JSON; None if it is not JSON."""
    if not member.isfile() or member.size > _MAX_READ:
        return None
    stream = archive.extractfile(member)
    if stream is None:
        return None
    try:
        return json.loads(stream.read(member.size))
    except (ValueError, RecursionError):
        return None


def _object(archive: tarfile.TarFile, member: tarfile.TarInfo) -> dict[str, Any]:
    found = _document(archive, member)
    return found if isinstance(found, dict) else {}


def _docker_images(document: Any) -> tuple[tuple[str, ...], ...]:
    """The names of each image in a manifest.json of Docker; empty if it is not one."""
    if not isinstance(document, list):
        return ()
    if not all(isinstance(one, dict) and {"Config", "Layers"} <= one.keys() for one in document):
        return ()
    return tuple(tuple(map(str, one.get("RepoTags") or ())) for one in document)


def _full(name: str) -> str:
    """Normalize a name: without the defaults of Docker, with a tag."""
    name = name.removeprefix("docker.io/").removeprefix("library/")
    return name if ":" in name.rpartition("/")[2] else f"{name}:latest"


class _Bounded(io.FileIO):
    """A file that limits reads, because headers of an archive give their own length."""

    def __init__(self, file: Path) -> None:
        super().__init__(file)
        self._left = _MAX_HEADERS

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or not 0 <= size <= min(_MAX_READ, self._left):
            raise OSError(
                f"its headers exceed {_MAX_READ >> 20} MiB at once "
                f"or {_MAX_HEADERS >> 20} MiB in total"
            )
        self._left -= size
        return super().read(size) or b""
