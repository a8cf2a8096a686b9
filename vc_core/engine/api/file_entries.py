"""Parses what the guest's agent sends about files: lines of JSON from an untrusted sender."""

from __future__ import annotations

import enum
from typing import TypeVar

import msgspec
from msgspec import Struct

from vc_core.engine.host.guest_text import shown
from vc_core.spec.errors import AgentError

T = TypeVar("T", "FileInfo", "FileChange")

MOST_ENTRIES = 100_000
_MOST_BYTES = 32 << 20  # of a whole list
_MOST_LINE_BYTES = 64 << 10  # a name and a target of PATH_MAX bytes, each byte as \\u00xx
_MOST_ID = (1 << 32) - 1
_MOST_MODE = 0o7777
_MOST_TIME_NS = 1 << 63
_MOST_SIZE = 1 << 63


class FileKind(enum.StrEnum):
    """The type of a file."""

    FILE = "file"
    FOLDER = "folder"
    LINK = "link"
    SPECIAL = "special"


class FileInfo(Struct, frozen=True):
    """A file of a container.

    Attributes:
        name: name in its folder.
        kind: type of the file.
        size: size in bytes.
        mode: permission bits.
        uid: its owner.
        gid: its group.
        mtime_ns: time of the last modification, in nanoseconds since the epoch.
        target: target of a symbolic link.
    """

    name: str
    kind: FileKind
    size: int
    mode: int
    uid: int
    gid: int
    mtime_ns: int
    target: str = ""


class Change(enum.StrEnum):
    """The kind of a change of a file."""

    CREATED = "created"
    WRITTEN = "written"
    DELETED = "deleted"


class FileChange(Struct, frozen=True):
    """A change of a file.

    Attributes:
        name: name of the file in the watched folder; empty for a watched file.
        change: the kind of the change.
    """

    name: str
    change: Change


class Lines:
    """Splits chunks into lines."""

    def __init__(self) -> None:
        self._rest = b""

    def add(self, chunk: bytes) -> list[bytes]:
        """Returns the lines that this chunk completes. Raises AgentError for an overlong line."""
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        if any(len(line) > _MOST_LINE_BYTES for line in (self._rest, *lines)):
            raise AgentError(
                f"the guest's agent has sent a line of more than {_MOST_LINE_BYTES} bytes"
            )
        return lines


class Listing:
    """Collects the files of a folder."""

    def __init__(self) -> None:
        self._lines = Lines()
        self._bytes = 0
        self.entries: list[FileInfo] = []

    def add(self, chunk: bytes) -> None:
        """Adds a chunk. Raises AgentError when it is no list of files, or the list is too long."""
        self._bytes += len(chunk)
        self.entries += (file_info(line) for line in self._lines.add(chunk))
        if len(self.entries) > MOST_ENTRIES or self._bytes > _MOST_BYTES:
            raise AgentError(
                f"the directory has more than {MOST_ENTRIES} files, "
                f"or {_MOST_BYTES >> 20} MiB of names; "
                "run ls or find in the container, or list directories below it"
            )


def file_info(line: bytes) -> FileInfo:
    """Parses a file. Raises AgentError when the line is invalid."""
    info = _decoded(line, FileInfo)
    _check_name(info.name)
    is_possible = (
        0 <= info.size < _MOST_SIZE
        and 0 <= info.mode <= _MOST_MODE
        and 0 <= info.uid <= _MOST_ID
        and 0 <= info.gid <= _MOST_ID
        and abs(info.mtime_ns) < _MOST_TIME_NS
    )
    if not is_possible or not info.name:
        raise AgentError("the guest's agent has sent a file that cannot exist")
    return info


def file_change(line: bytes) -> FileChange:
    """Parses a change. Raises AgentError when the line is invalid."""
    change = _decoded(line, FileChange)
    _check_name(change.name)
    return change


def _decoded(line: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(line, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise AgentError(
            f"the guest's agent has sent what describes no file: {shown(str(error))}"
        ) from error


def _check_name(name: str) -> None:
    """Requires that a name is one component of a path, so that it does not lead out of a folder."""
    if "/" in name or "\0" in name or name in (".", ".."):
        raise AgentError("the guest's agent has sent a file name that leads elsewhere")
