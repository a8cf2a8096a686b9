"""Reads the mount table of this host: mountinfo of proc(5)."""

from __future__ import annotations

import re
from pathlib import Path

from msgspec import Struct

_TABLE = Path("/proc/thread-self/mountinfo")  # a thread may have a namespace of its own
_OCTAL = r"\\([0-7]{3})"


class MountPoint(Struct, frozen=True):
    """One line of the mount table.

    Attributes:
        id: id of the mount.
        device: "major:minor".
        root: path inside the file system that is mounted here: "/" for all of it.
        point: path of the mount point.
        options: options of this mount point.
        fstype: type of the file system.
        source: the mounted device or name.
        super_options: options of the file system, the same for all its mounts.
        tags: propagation: "shared:1", "unbindable".
    """

    id: int
    device: str
    root: str
    point: Path
    options: frozenset[str]
    fstype: str
    source: str
    super_options: frozenset[str]
    tags: frozenset[str] = frozenset()


def parse(table: bytes) -> list[MountPoint]:
    """Parses the table, in the order of mounting.

    Any user of the host may choose the name of a mount point. The kernel escapes blanks, tabs,
    line feeds and backslashes of it as octal numbers, and nothing else. So a name may be no UTF-8,
    which becomes surrogates, or have characters at which `str.splitlines` splits.
    """
    lines = table.decode(errors="surrogateescape").split("\n")
    return [_point(line) for line in lines if line]


def points(table: Path = _TABLE) -> list[MountPoint]:
    """Returns all current mounts, by default those of this thread."""
    return parse(table.read_bytes())


def holding(path: Path, table: list[MountPoint] | None = None) -> MountPoint:
    """Returns the mount point of a path; of stacked ones the last, which hides the others."""
    real = path.resolve()
    found = [one for one in table or points() if one.point == real or one.point in real.parents]
    return max(enumerate(found), key=lambda item: (len(item[1].point.parts), item[0]))[1]


def below(folder: Path, table: list[MountPoint] | None = None) -> list[MountPoint]:
    """Returns the mounts inside a folder, in the order of mounting."""
    real = folder.resolve()
    return [one for one in table or points() if real in one.point.parents]


def _point(line: str) -> MountPoint:
    left, _, right = line.partition(" - ")
    fields, rest = left.split(" "), right.split(" ")
    return MountPoint(
        id=int(fields[0]),
        device=fields[2],
        root=_decoded(fields[3]),
        point=Path(_decoded(fields[4])),
        options=frozenset(fields[5].split(",")),
        fstype=rest[0],
        source=_decoded(rest[1]),
        super_options=frozenset(rest[2].split(",")),
        tags=frozenset(fields[6:]),
    )


def _decoded(text: str) -> str:
    return text if "\\" not in text else re.sub(_OCTAL, lambda match: chr(int(match[1], 8)), text)
