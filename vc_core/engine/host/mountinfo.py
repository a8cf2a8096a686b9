"""What is mounted where on this host: proc(5)'s mountinfo."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

_TABLE = Path("/proc/thread-self/mountinfo")  # a thread may have a table of its own (views.py)
_OCTAL = re.compile(r"\\([0-7]{3})")


@dataclass(frozen=True)
class MountPoint:
    """One line of the table.

    Attributes:
        id: of the mount.
        device: "major:minor".
        root: what of the file system is mounted here: "/" for all of it.
        point: where.
        options: of this mount point.
        fstype: of the file system.
        source: what it was mounted from.
        super_options: of the file system, wherever it is mounted.
        tags: how it is shared with others: "shared:1", "unbindable".
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


def parse(text: str) -> list[MountPoint]:
    """The table, in the order of mounting.

    Blanks, tabs, line ends and backslashes are octal escapes.
    """
    return [_point(line) for line in text.splitlines()]


def points() -> list[MountPoint]:
    """Everything that is mounted now."""
    return parse(_TABLE.read_bytes().decode(errors="surrogateescape"))


def holding(path: Path, table: list[MountPoint] | None = None) -> MountPoint:
    """The mount point that a path lies on; of several at one place the last, which hides the
    others.
    """
    real = path.resolve()
    found = [one for one in table or points() if one.point == real or one.point in real.parents]
    return max(enumerate(found), key=lambda item: (len(item[1].point.parts), item[0]))[1]


def below(folder: Path, table: list[MountPoint] | None = None) -> list[MountPoint]:
    """What is mounted inside a folder, in the order of mounting."""
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
    return _OCTAL.sub(lambda match: chr(int(match[1], 8)), text)
