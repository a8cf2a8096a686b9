"""Moves the memory out of a saved machine's state, so that clones can share it.

QEMU writes the memory of a machine, if it is not shared, into the stream of its state,
page by page; a page that the guest changes meanwhile comes again. This module writes the
pages into a file for each block, with holes for missing pages, and copies the rest
unchanged: a machine that maps those files reads that.
The stream's format: qemu.git, docs/devel/migration, migration/savevm.c, migration/ram.c
and scripts/analyze-migration.py.
"""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

from vc_qemu.errors import QemuError

# Sections, savevm.h.
_MAGIC, _VERSION = 0x5145564D, 3
_SECTION_START, _SECTION_PART, _SECTION_END, _FOOTER = 1, 2, 3, 0x7E
_CONFIGURATION, _SUBSECTION, _COMMAND = 7, 5, 8
# Flags in the low bits of a page's address, ram.c.
_ZERO, _SIZES, _PAGE, _EOS, _CONTINUE = 0x02, 0x04, 0x08, 0x10, 0x20
_FLAGS = 0xFFF
_PAGE_BYTES = 4096
_RUN_PAGES = 512  # written by one call; at most IOV_MAX, 1024
_GROUP_PAGES = 64  # whose being written is kept in one number
_ZEROS = bytes(_PAGE_BYTES)
_U8, _U16, _U32, _U64 = (
    struct.Struct(">B"),
    struct.Struct(">H"),
    struct.Struct(">I"),
    struct.Struct(">Q"),
)


class _Reader:
    """Reads the stream from front to back."""

    def __init__(self, data: memoryview) -> None:
        self.data = data
        self.at = 0

    def number(self, kind: struct.Struct) -> int:
        (value,) = kind.unpack_from(self.data, self.at)
        self.at += kind.size
        return int(value)

    def peek(self) -> int:
        return int(_U8.unpack_from(self.data, self.at)[0])

    def is_next(self, word: int) -> bool:
        """Whether this word follows, which is then taken."""
        if len(self.data) - self.at < _U64.size or _U64.unpack_from(self.data, self.at)[0] != word:
            return False
        self.at += _U64.size
        return True

    def take(self, count: int) -> memoryview:
        self.at += count
        if self.at > len(self.data):
            raise QemuError("QEMU's state ends too early")
        return self.data[self.at - count : self.at]

    def text(self) -> str:
        return bytes(self.take(self.number(_U8))).decode()


def split(data: memoryview, rest: BinaryIO, files: Mapping[str, Path]) -> None:
    """Writes a state without the pages of some blocks, and these pages into files.

    Args:
        data: the output of QEMU with the capability x-ignore-shared.
        rest: receives the state without the pages.
        files: name of a block to the file for its pages, which is created.

    Raises:
        QemuError: the stream has another format, or lacks one of the blocks.
        OSError: the disk is full.
    """
    try:
        _split(_Reader(data), rest, files)
    except (struct.error, UnicodeDecodeError, OverflowError) as error:  # a size above 8 EiB
        raise QemuError(f"QEMU's state cannot be read: {error}") from error


def _split(stream: _Reader, rest: BinaryIO, files: Mapping[str, Path]) -> None:
    if (stream.number(_U32), stream.number(_U32)) != (_MAGIC, _VERSION):
        raise QemuError(
            "QEMU's state has another format than this version of virtcontainers-qemu reads"
        )
    _skip_configuration(stream)
    rest.write(stream.data[: stream.at])
    pages = _Pages(rest, files)
    kind = 0
    try:
        while kind != _SECTION_END:
            kind = stream.peek()
            if kind == _COMMAND:
                _command(stream, rest)
            elif kind in (_SECTION_START, _SECTION_PART, _SECTION_END):
                _section(stream, rest, pages)
            else:
                raise QemuError(f"QEMU's state has an unknown part: kind {kind}")
    finally:
        pages.close()
    if missing := [name for name in files if name not in pages.sizes]:
        raise QemuError(f"QEMU's state lacks the memory {', '.join(missing)}")
    if stream.at == len(stream.data):
        raise QemuError("QEMU's state ends too early")
    rest.write(stream.data[stream.at :])


def _command(stream: _Reader, rest: BinaryIO) -> None:
    """Copies a command to the other side, which QEMU 10 sends before the last section."""
    begin = stream.at
    stream.take(3)
    stream.take(stream.number(_U16))
    rest.write(stream.data[begin : stream.at])


def _skip_configuration(stream: _Reader) -> None:
    """Skips the machine type and, in subsections, the capabilities: neither has a length field."""
    if stream.peek() != _CONFIGURATION:
        return
    stream.take(1)
    stream.take(stream.number(_U32))
    while stream.peek() == _SUBSECTION:
        stream.take(1)
        name = stream.text()
        stream.take(4)
        if name != "configuration/capabilities":
            raise QemuError(f"QEMU's state has an unknown part: {name}")
        for _ in range(stream.number(_U32)):
            stream.text()


def _section(stream: _Reader, rest: BinaryIO, pages: _Pages) -> None:
    """Reads one section of the memory: nothing else is saved in several sections."""
    begin = stream.at
    kind = stream.number(_U8)
    number = stream.number(_U32)
    if kind == _SECTION_START:
        if (name := stream.text()) != "ram":
            raise QemuError(f"QEMU's state has an unknown part: {name}")
        stream.take(8)
    rest.write(stream.data[begin : stream.at])
    pages.read(stream)
    begin = stream.at
    if (stream.number(_U8), stream.number(_U32)) != (_FOOTER, number):
        raise QemuError("QEMU's state has a section without its footer")
    rest.write(stream.data[begin : stream.at])


class _Pages:
    """Writes pages into the file of their block, or into the rest when it has no file."""

    def __init__(self, rest: BinaryIO, files: Mapping[str, Path]) -> None:
        self.sizes: dict[str, int] = {}
        self._rest = rest
        self._handles: dict[str, int] = {}
        self._files = files
        self._block = ""
        self._written: dict[tuple[int, int], int] = {}

    def read(self, stream: _Reader) -> None:
        """Reads all records of one section."""
        while True:
            begin = stream.at
            word = stream.number(_U64)
            flags, address = word & _FLAGS, word & ~_FLAGS
            if flags == _EOS:
                self._rest.write(stream.data[begin : stream.at])
                return
            if flags == _SIZES:
                self._read_sizes(stream, address)
                self._rest.write(stream.data[begin : stream.at])
                continue
            if not flags & _CONTINUE:
                self._block = stream.text()
            self._page(stream, begin, flags & ~_CONTINUE, address)

    def close(self) -> None:
        for handle in self._handles.values():
            os.close(handle)

    def _read_sizes(self, stream: _Reader, total: int) -> None:
        """Reads name, length and address of each block."""
        while total > 0:
            name, size = stream.text(), stream.number(_U64)
            stream.take(8)
            total -= size
            self.sizes[name] = size
            if name in self._files:
                path = self._files[name]
                self._handles[name] = os.open(
                    path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600
                )
                os.ftruncate(self._handles[name], size)

    def _page(self, stream: _Reader, begin: int, flags: int, address: int) -> None:
        handle = self._handles.get(self._block)
        if flags == _ZERO:
            fill = stream.number(_U8)
            if handle is not None and fill:
                self._write(handle, [memoryview(bytes([fill]) * _PAGE_BYTES)], address)
            elif handle is not None and self._is_written(handle, address):
                _write_all(handle, memoryview(_ZEROS), address)
        elif flags == _PAGE:
            pages = [stream.take(_PAGE_BYTES)]
            if handle is not None:
                follows = address + _PAGE_BYTES
                while len(pages) < _RUN_PAGES and stream.is_next(follows | _PAGE | _CONTINUE):
                    pages.append(stream.take(_PAGE_BYTES))
                    follows += _PAGE_BYTES
                self._write(handle, pages, address)
        else:
            raise QemuError(f"QEMU's state has a page of an unknown kind: {flags:#x}")
        if handle is None:
            self._rest.write(stream.data[begin : stream.at])

    def _write(self, handle: int, pages: list[memoryview], address: int) -> None:
        if os.pwritev(handle, pages, address) != len(pages) * _PAGE_BYTES:
            for number, page in enumerate(pages):  # the disk is full: this raises the reason
                _write_all(handle, page, address + number * _PAGE_BYTES)
        first = address // _PAGE_BYTES
        for number in range(first, first + len(pages)):
            group = handle, number // _GROUP_PAGES
            self._written[group] = self._written.get(group, 0) | 1 << number % _GROUP_PAGES

    def _is_written(self, handle: int, address: int) -> bool:
        number = address // _PAGE_BYTES
        group = self._written.get((handle, number // _GROUP_PAGES), 0)
        return bool(group >> number % _GROUP_PAGES & 1)


def _write_all(handle: int, data: memoryview, address: int) -> None:
    """Writes data; where the kernel takes only a part, the next write gives the reason."""
    while data:
        count = os.pwrite(handle, data, address)
        if count == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        data, address = data[count:], address + count
