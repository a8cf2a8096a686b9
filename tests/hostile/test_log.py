"""A guest that writes on its log's disk what it likes: reading it ends, in time and with little
memory.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

_BLOCK, _HEAD = 4096, 20
_ROOM = _BLOCK - _HEAD
_STDOUT, _LAST = 1, 4


def record(data: bytes, kind: int = _STDOUT, time_ns: int = 1, length: int | None = None) -> bytes:
    return struct.pack("<BHQ", kind, len(data) if length is None else length, time_ns) + data


def block(number: int, records: bytes, used: int | None = None) -> bytes:
    rest = struct.pack("<QH2x", number, len(records) if used is None else used) + records
    rest += bytes(_BLOCK - 8 - len(rest))
    return struct.pack("<4sI", b"VCL1", zlib.crc32(rest)) + rest


def fill(path: Path, records: Callable[[int], bytes]) -> None:
    """Writes every block of a log."""
    places = path.stat().st_size // _BLOCK
    with path.open("r+b") as disk:
        for number in range(1, places + 1):
            disk.write(block(number, records(number)))


_SHORT_LINES = record(b"\n" * (_ROOM - 11))


@pytest.mark.parametrize(
    ("records", "last"),
    [
        pytest.param(_SHORT_LINES, b"\n\n\n", id="short-lines"),
        pytest.param(record(b"x" * 400) * (_ROOM // 411), None, id="one-line-of-pieces"),
        pytest.param(record(b"x" * (_ROOM - 11)), None, id="one-line"),
    ],
)
def test_the_last_lines_of_a_log_take_little_memory_however_many_there_are(hostile, records, last):
    hostile.run()
    fill(hostile.log(), lambda _: records)
    done = hostile.vc("logs", "--tail", "3", "box")
    assert (done.code, done.problems()) == (0, [])
    if last is not None:
        assert done.stdout == last
    followed = hostile.vc("logs", "--tail", "100000", "box")
    assert (followed.code, followed.problems()) == (0, [])


@pytest.mark.parametrize(
    "records",
    [
        pytest.param(record(b"", kind=77), id="wrong-kind"),
        pytest.param(record(b"", kind=0), id="no-kind"),
        pytest.param(record(b"abc", length=65535), id="wrong-length"),
        pytest.param(b"\1", id="half-a-head"),
        pytest.param(record(b"never\n", time_ns=(1 << 64) - 1), id="a-time-that-never-is"),
    ],
)
@pytest.mark.parametrize(
    "words", [["-t"], ["--json"], ["--tail", "1"], ["-f"]], ids=lambda words: words[0]
)
def test_what_is_no_record_is_left_out_with_a_word(hostile, records, words):
    hostile.run()
    fill(hostile.log(), lambda number: (record(b"good\n") if number == 1 else b"") + records)
    with hostile.log().open("r+b") as disk:  # and an end, for who follows
        places = hostile.log().stat().st_size // _BLOCK
        disk.write(block(places + 1, record(b"good\n") + record(b"\0\0\0\0", kind=_LAST)))
    done = hostile.vc("logs", *words, "box")
    assert (done.code, done.problems()) == (0, [])
    assert b"good" in done.stdout
    assert bool(done.stderr) is (b"never" not in records), "a warning where something was left out"


def test_a_log_without_an_end_is_read_to_where_it_was(hostile):
    """Numbers of blocks that fit nowhere, and a length beyond the block."""
    hostile.run()
    path = hostile.log()
    places = path.stat().st_size // _BLOCK
    with path.open("r+b") as disk:
        for place in range(places):
            disk.write(block((1 << 64) - 1 - place, record(b"x\n"), used=65535))
    done = hostile.vc("logs", "box")
    assert (done.code, done.problems()) == (0, [])
