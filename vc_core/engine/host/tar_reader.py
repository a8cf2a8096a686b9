"""Reads a tar archive of an untrusted sender in constant memory.

`tarfile` reads a long name, a list of holes or a chain of headers of any length, and keeps every
member. Here it only decodes single headers; everything between them is bounded. Formats: ustar, GNU
with long names and sparse files, pax with names, sizes, owners and times.
"""

from __future__ import annotations

import enum
import sys
import tarfile
from collections.abc import Callable, Iterator
from itertools import pairwise

from msgspec import Struct

from vc_core.engine.host.guest_text import shown
from vc_core.spec.errors import AgentError

_BLOCK = 512
_MOST_NAME_BYTES = 4096  # PATH_MAX
_MOST_PAX_BYTES = 64 << 10
_MOST_EXTENSIONS = 16  # headers that only describe the next one
_MOST_MEMBERS = 10_000_000
_MOST_SEGMENTS = 200_000
_MOST_TRAILING_BYTES = 1 << 20
_MOST_BYTES = 1 << 62
_MOST_TIME_S = 1 << 34  # the year 2514; ext4 ends in 2446, xfs in 2486
_MOST_ID = (1 << 32) - 2
# GNU tar manual, "Sparse Formats": (offset, length) pairs of 12 bytes each; struct oldgnu_header
# and sparse_header.
_SPARSE_AT, _SPARSE_COUNT, _SPARSE_MORE_AT, _SPARSE_SIZE_AT = 386, 4, 482, 483
_EXTENDED_COUNT, _EXTENDED_MORE_AT = 21, 504
_PAIR = 24
_NUMBER = 12


class Kind(enum.Enum):
    """The type of a member."""

    FILE = "file"
    FOLDER = "folder"
    SYMBOLIC_LINK = "symbolic link"
    HARD_LINK = "hard link"
    FIFO = "FIFO"
    DEVICE = "device"


_KINDS = {
    tarfile.REGTYPE: Kind.FILE,
    tarfile.AREGTYPE: Kind.FILE,
    tarfile.CONTTYPE: Kind.FILE,
    tarfile.GNUTYPE_SPARSE: Kind.FILE,
    tarfile.DIRTYPE: Kind.FOLDER,
    tarfile.SYMTYPE: Kind.SYMBOLIC_LINK,
    tarfile.LNKTYPE: Kind.HARD_LINK,
    tarfile.FIFOTYPE: Kind.FIFO,
    tarfile.CHRTYPE: Kind.DEVICE,
    tarfile.BLKTYPE: Kind.DEVICE,
}


class Member(Struct, frozen=True):
    """One entry of an archive.

    Attributes:
        kind: type of the member.
        parts: components of its path; relative, without "." and "..".
        mode: permission bits, including set-uid, set-gid and sticky.
        uid: its owner.
        gid: its group.
        mtime_s: time of the last modification, in seconds since the epoch.
        size: size in bytes, including holes.
        segments: offset and length of the data between holes, ascending.
        target: target of a symbolic link.
        target_parts: target of a hard link, as `parts`.
    """

    kind: Kind
    parts: tuple[str, ...]
    mode: int
    uid: int
    gid: int
    mtime_s: int
    size: int = 0
    segments: tuple[tuple[int, int], ...] = ()
    target: str = ""
    target_parts: tuple[str, ...] = ()


class TarReader:
    """The members of one archive, in their order.

    Raises AgentError for every error of the archive.
    """

    def __init__(self, pull: Callable[[], bytes]) -> None:
        """Creates a reader; `pull` returns the next bytes, and none at the end."""
        self._pull = pull
        self._buffer = memoryview(b"")
        self._left = 0  # bytes of the current member's data, including padding

    def __iter__(self) -> Iterator[Member]:
        for _ in range(_MOST_MEMBERS):
            self._skip(self._left)
            self._left = 0
            member = self._next()
            if member is None:
                self._skip_trailing()
                return
            yield member
        raise AgentError(f"the guest has sent an archive of more than {_MOST_MEMBERS} files")

    def data(self, length: int) -> Iterator[memoryview]:
        """Yields the next bytes of the current member's content."""
        while length:
            chunk = self._some(length)
            length -= len(chunk)
            self._left -= len(chunk)
            yield chunk

    def _next(self) -> Member | None:
        names: dict[str, str] = {}
        for _ in range(_MOST_EXTENSIONS):
            block = self._header_block()
            if block is None:
                return None
            header = _decoded(block)
            if not 0 <= header.size <= _MOST_BYTES:
                raise AgentError(f"the guest has sent an impossible size, {header.size}")
            if header.type in (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK):
                key = "path" if header.type == tarfile.GNUTYPE_LONGNAME else "linkpath"
                names[key] = _text(
                    self._small(header.size, _MOST_NAME_BYTES + 1).partition(b"\0")[0]
                )
            elif header.type in (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE):
                names |= _pax_records(self._small(header.size, _MOST_PAX_BYTES))
            elif header.type == tarfile.XGLTYPE:
                self._small(header.size, _MOST_PAX_BYTES)  # comments, as git writes them
            else:
                return self._member(header, block, names)
        raise AgentError("the guest has sent no archive: its headers describe nothing")

    def _member(self, header: tarfile.TarInfo, block: bytes, changed: dict[str, str]) -> Member:
        kind = _KINDS.get(header.type)
        if kind is None:
            raise AgentError(
                f"the guest has sent an archive with a member of the unknown type {header.type!r}"
            )
        size = _pax_number(changed, "size", header.size) if kind is Kind.FILE else 0
        uid, gid = _pax_number(changed, "uid", header.uid), _pax_number(changed, "gid", header.gid)
        mtime_s = _pax_number(changed, "mtime", int(header.mtime))
        name, target = changed.get("path", header.name), changed.get("linkpath", header.linkname)
        if abs(mtime_s) >= _MOST_TIME_S:
            raise AgentError(f"the guest has sent an impossible time, {mtime_s}, for {shown(name)}")
        if not (
            0 <= size <= _MOST_BYTES
            and 0 <= uid <= _MOST_ID
            and 0 <= gid <= _MOST_ID
            and header.mode >= 0
        ):
            raise AgentError(
                f"the guest has sent an impossible size, owner or mode for {shown(name)}"
            )
        if kind is Kind.SYMBOLIC_LINK and (
            not target or "\0" in target or len(target) > _MOST_NAME_BYTES
        ):
            raise AgentError(f"the guest has sent a link without a possible target, {shown(name)}")
        whole: int = size
        segments: tuple[tuple[int, int], ...] = ((0, size),)
        if header.type == tarfile.GNUTYPE_SPARSE:
            whole, segments = self._sparse(block, size)
        self._left = size + -size % _BLOCK
        return Member(
            kind,
            _parts(name),
            header.mode & 0o7777,
            uid,
            gid,
            mtime_s,
            whole,
            segments,
            target,
            _parts(target) if kind is Kind.HARD_LINK else (),
        )

    def _sparse(self, block: bytes, size: int) -> tuple[int, tuple[tuple[int, int], ...]]:
        """Returns the whole size of a sparse file, and its segments."""
        whole = _number(block[_SPARSE_SIZE_AT : _SPARSE_SIZE_AT + _NUMBER])
        segments = _pairs(block[_SPARSE_AT:], _SPARSE_COUNT)
        has_more = bool(block[_SPARSE_MORE_AT])
        while has_more:
            if len(segments) > _MOST_SEGMENTS:
                raise AgentError(f"the guest has sent a file with more than {_MOST_SEGMENTS} holes")
            block = self._exactly(_BLOCK)
            segments += _pairs(block, _EXTENDED_COUNT)
            has_more = bool(block[_EXTENDED_MORE_AT])
        in_order = all(one[0] + one[1] <= next_one[0] for one, next_one in pairwise(segments))
        ends_at = segments[-1][0] + segments[-1][1] if segments else 0
        if (
            not in_order
            or ends_at > whole
            or whole > _MOST_BYTES
            or sum(length for _, length in segments) != size
        ):
            raise AgentError("the guest has sent no archive: the holes of a file do not fit")
        return whole, tuple(segments)

    def _header_block(self) -> bytes | None:
        """Returns the next header; None at the end of the archive."""
        if not self._buffer:
            self._buffer = memoryview(self._pull())
            if not self._buffer:
                return None
        block = self._exactly(_BLOCK)
        return None if not any(block) else block

    def _small(self, size: int, limit: int) -> bytes:
        if size > limit:
            raise AgentError(
                f"the guest has sent a header of {size} bytes, where {limit} are the most"
            )
        data = self._exactly(size)
        self._skip(-size % _BLOCK)
        return data

    def _exactly(self, size: int) -> bytes:
        data = bytearray()
        while len(data) < size:
            data += self._some(size - len(data))
        return bytes(data)

    def _skip(self, size: int) -> None:
        while size:
            size -= len(self._some(size))

    def _some(self, most: int) -> memoryview:
        if not self._buffer:
            self._buffer = memoryview(self._pull())
            if not self._buffer:
                raise AgentError("the guest has sent no archive: it ends in the middle")
        chunk, self._buffer = self._buffer[:most], self._buffer[most:]
        return chunk

    def _skip_trailing(self) -> None:
        """Reads the padding at the end, without which the sender fails with a broken pipe."""
        count = len(self._buffer)
        while chunk := self._pull():
            count += len(chunk)
            if count > _MOST_TRAILING_BYTES:
                raise AgentError("the guest goes on after the end of the archive")


def _decoded(block: bytes) -> tarfile.TarInfo:
    try:
        return tarfile.TarInfo.frombuf(block, sys.getfilesystemencoding(), "surrogateescape")
    except (tarfile.TarError, ValueError) as error:
        raise AgentError(f"the guest has sent no archive: {error}") from error


def _text(data: bytes) -> str:
    return data.decode(sys.getfilesystemencoding(), "surrogateescape")


def _parts(name: str) -> tuple[str, ...]:
    parts = tuple(part for part in name.split("/") if part not in ("", "."))
    if name.startswith("/") or ".." in parts:
        raise AgentError(
            f"the guest has sent the path {shown(name)}, which leads out of what was asked for"
        )
    if "\0" in name or not name or len(name) > _MOST_NAME_BYTES:
        raise AgentError(f"the guest has sent an impossible name, {shown(name)}")
    return parts


def _pax_records(data: bytes) -> dict[str, str]:
    """Parses pax records: lines of "LENGTH KEY=VALUE" (POSIX pax, "Extended Header")."""
    records: dict[str, str] = {}
    while data:
        digits, _, _ = data.partition(b" ")
        length = (
            int(digits) if digits.isdigit() and len(digits) < len(str(_MOST_PAX_BYTES)) + 1 else 0
        )
        record = data[len(digits) + 1 : length]
        if not record.endswith(b"\n") or b"=" not in record:
            raise AgentError("the guest has sent no archive: a pax header is damaged")
        key, _, value = record[:-1].partition(b"=")
        if key.startswith(b"GNU.sparse."):
            raise AgentError(
                "the guest has sent an archive with holes in the pax format, which is not supported"
            )
        records[_text(key)] = _text(value)
        data = data[length:]
    return records


def _pax_number(changed: dict[str, str], key: str, otherwise: int) -> int:
    """Parses a pax number; times have fractions."""
    if key not in changed:
        return otherwise
    digits = changed[key].partition(".")[0]
    if not digits.removeprefix("-").isdecimal() or len(digits) > len(str(_MOST_BYTES)):
        raise AgentError(f"the guest has sent an impossible {key}, {shown(changed[key])}")
    return int(digits)


def _pairs(block: bytes, most: int) -> list[tuple[int, int]]:
    pairs = []
    for at in range(0, most * _PAIR, _PAIR):
        offset, length = (
            _number(block[at : at + _NUMBER]),
            _number(block[at + _NUMBER : at + _PAIR]),
        )
        if length:
            pairs.append((offset, length))
    return pairs


def _number(field: bytes) -> int:
    """Parses octal digits, or a big-endian number after a set first bit (GNU)."""
    if field[0] & 0x80:
        return int.from_bytes(field[1:], "big")
    digits = field.rstrip(b" \0").lstrip(b" ")
    if digits.strip(b"01234567"):
        raise AgentError("the guest has sent no archive: a number in it is none")
    return int(digits or b"0", 8)
