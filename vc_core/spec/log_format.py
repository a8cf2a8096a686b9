"""The format of a container's log on the host: a ring of blocks.

The guest's agent writes it (guest/src/process/log.rs). All numbers are little-endian. The file is a
whole number of blocks of 4096 bytes:

     0  magic     "VCL1"
     4  checksum  CRC-32 (as in zlib) of all that follows in the block
     8  sequence  64 bits, from 1: block number n is at place (n - 1) modulo the number of places
    16  used      16 bits: bytes of records
    20  records   consecutive; no record continues in the next block

A record: kind (8 bits: 1 stdout, 2 stderr, 3 a process ended and is restarted, 4 one ended, 5 one
begins), length (16 bits), time (64 bits, nanoseconds since the epoch by the guest's clock), data.
The data of an end is the exit code, 32 bits. The last block is rewritten whenever a record is
added; a block with a wrong checksum is being written.
"""

from __future__ import annotations

import enum
import os
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, Self

_BLOCK = 4096
_MAGIC = b"VCL1"
_HEAD = struct.Struct("<4sIQH2x")
_RECORD = struct.Struct("<BHQ")
_SUMMED = 8


class Kind(enum.IntEnum):
    """The kind of a record."""

    STDOUT = 1
    STDERR = 2
    ENDED = 3
    LAST = 4
    BEGUN = 5


_KINDS = {kind.value: kind for kind in Kind}


class Record(NamedTuple):  # cheap to make: there can be a million in a log
    """One record of a log.

    Attributes:
        kind: the kind of the record.
        time_ns: time of the write, in nanoseconds since the epoch.
        data: bytes of output, or an exit code.
    """

    kind: Kind
    time_ns: int
    data: bytes


class Reader:
    """Reads a log, and continues from there at each further call.

    The guest has write access to the disk, so its contents are untrusted: an invalid block is
    skipped, and an invalid record ends its block.

    Attributes:
        has_lost: whether blocks were overwritten before they were read.
        has_more: whether more records were there than one call returns.
        is_damaged: whether there was an invalid record.
    """

    def __init__(self, path: Path) -> None:
        """Raises FileNotFoundError when there is no log."""
        self._handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._places = os.fstat(self._handle).st_size // _BLOCK
        self._sequence = 0  # number of the block that was read last
        self._used = 0  # bytes of its records that were read
        self.has_lost = False
        self.has_more = False
        self.is_damaged = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._handle)

    def read(self) -> Iterator[Record]:
        """Yields the records since the last call, but no more than the size of a whole log.

        Without that bound, a guest that writes without an end would keep the reader busy forever.
        """
        self.has_more = False
        if self._sequence == 0:
            found = self._oldest()
            if found is None:
                return
            self._sequence, self._used = found, 0
        for _ in range(self._places + 1):
            block = self._block(self._sequence)
            if block is None:
                newest = self._oldest()
                if newest is None or newest <= self._sequence:
                    return  # being written; a later call reads it
                self.has_lost, self._sequence, self._used = True, newest, 0
                continue
            yield from self._records(block)
            if self._block(self._sequence + 1) is None:
                return
            self._sequence, self._used = self._sequence + 1, 0
        self.has_more = True

    def _records(self, block: bytes) -> Iterator[Record]:
        while self._used < len(block):
            begin = self._used + _RECORD.size
            kind, length, time_ns = (
                _RECORD.unpack_from(block, self._used) if begin <= len(block) else (0, 0, 0)
            )
            if kind not in _KINDS or begin + length > len(block):
                self.is_damaged, self._used = True, len(block)
                return
            self._used = begin + length
            yield Record(_KINDS[kind], time_ns, block[begin : self._used])

    def _oldest(self) -> int | None:
        """Returns the number of the first block that still exists with all later ones."""
        there = {number for place in range(self._places) if (number := self._number(place))}
        if not there:
            return None
        oldest = max(there)
        while oldest - 1 in there:
            oldest -= 1
        return oldest

    def _number(self, place: int) -> int:
        """Returns the number of the block in a place; 0 when there is none that belongs there."""
        block = os.pread(self._handle, _BLOCK, place * _BLOCK)
        magic, checksum, number, _ = _HEAD.unpack_from(block)
        is_block = magic == _MAGIC and checksum == zlib.crc32(block[_SUMMED:])
        return number if is_block and number and (number - 1) % self._places == place else 0

    def _block(self, number: int) -> bytes | None:
        """Returns the records of a block; None when it was overwritten or is not written yet."""
        block = os.pread(self._handle, _BLOCK, (number - 1) % self._places * _BLOCK)
        magic, checksum, found, used = _HEAD.unpack_from(block)
        if magic != _MAGIC or found != number or checksum != zlib.crc32(block[_SUMMED:]):
            return None
        return block[_HEAD.size : _HEAD.size + used]
