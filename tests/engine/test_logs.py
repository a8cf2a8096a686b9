"""Reading logs that a guest has written, whole, in part and while it writes."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import pytest

from vc_core.defaults import DataDefaults
from vc_core.engine.host.container_disks import ContainerDisks, copy_sparse
from vc_core.engine.resources import container_log
from vc_core.engine.resources.container_log import Lines
from vc_core.spec.log_format import Kind, Reader, Record
from vc_core.spec.values import StreamName

BLOCK, HEAD = 4096, 20


class Writer:
    """As the guest's agent writes: plugins/agent_grpc/guest/src/process/log.rs."""

    def __init__(self, path: Path, places: int) -> None:
        path.write_bytes(bytes(places * BLOCK))
        self.path, self.places = path, places
        self.sequence, self.records = 1, b""

    def add(self, kind: Kind, data: bytes, time_ns: int = 1) -> None:
        record = struct.pack("<BHQ", kind, len(data), time_ns) + data
        if len(self.records) + len(record) > BLOCK - HEAD:
            self.sequence, self.records = self.sequence + 1, b""
        self.records += record
        self.write()

    def write(self, is_torn: bool = False) -> None:
        rest = struct.pack("<QH2x", self.sequence, len(self.records)) + self.records
        rest += bytes(BLOCK - 8 - len(rest))
        checksum = zlib.crc32(rest) ^ is_torn
        with self.path.open("r+b") as stream:
            stream.seek((self.sequence - 1) % self.places * BLOCK)
            stream.write(struct.pack("<4sI", b"VCL1", checksum) + rest)


@pytest.fixture
def log(tmp_path):
    return Writer(tmp_path / "c.log", 4)


def texts(records) -> list[bytes]:
    return [record.data for record in records]


def test_a_log_is_read_on_from_where_it_was_left(log):
    with Reader(log.path) as reader:
        assert texts(reader.read()) == []
        log.add(Kind.STDOUT, b"one")
        assert texts(reader.read()) == [b"one"]
        assert texts(reader.read()) == []
        log.add(Kind.STDERR, b"two")
        log.add(Kind.STDOUT, b"x" * 4000)  # in the next block
        log.add(Kind.LAST, b"\0\0\0\0")
        assert list(reader.read()) == [
            Record(Kind.STDERR, 1, b"two"),
            Record(Kind.STDOUT, 1, b"x" * 4000),
            Record(Kind.LAST, 1, b"\0\0\0\0"),
        ]


def test_who_is_overtaken_goes_on_with_what_is_there(log):
    with Reader(log.path) as reader:
        log.add(Kind.STDOUT, b"%04000d" % 0)
        assert len(texts(reader.read())) == 1
        for number in range(1, 10):
            log.add(Kind.STDOUT, b"%04000d" % number)
        assert [int(text) for text in texts(reader.read())] == [6, 7, 8, 9]
        assert reader.has_lost
        log.add(Kind.STDOUT, b"%04000d" % 10)
        assert [int(text) for text in texts(reader.read())] == [10]


def test_a_block_that_is_just_being_written_is_read_later(log):
    log.add(Kind.STDOUT, b"one")
    with Reader(log.path) as reader:
        assert texts(reader.read()) == [b"one"]
        log.write(is_torn=True)
        assert texts(reader.read()) == []
        log.add(Kind.STDOUT, b"two")
        assert texts(reader.read()) == [b"two"]


def test_what_is_no_log_has_no_records(tmp_path):
    path = tmp_path / "c.log"
    path.write_bytes(b"\xff" * BLOCK * 3)
    with Reader(path) as reader:
        assert texts(reader.read()) == []


def test_pieces_become_lines_of_each_stream():
    lines = Lines()
    pieces = [
        (Kind.STDOUT, b"a\rb\nc"),
        (Kind.STDERR, b"err"),
        (Kind.STDOUT, b"d\n"),
        (Kind.STDERR, b"or\n"),
    ]
    found = lines.all_of(Record(kind, number, data) for number, (kind, data) in enumerate(pieces))
    assert [(line.time_ns, line.stream, line.data) for line in found] == [
        (0, StreamName.STDOUT, b"a\rb\n"),
        (0, StreamName.STDOUT, b"cd\n"),
        (1, StreamName.STDERR, b"error\n"),
    ]
    assert lines.all_of([Record(Kind.STDOUT, 5, b"half")]) == []
    assert [line.data for line in lines.all_of([Record(Kind.LAST, 6, b"")])] == [b"half"]
    assert lines.is_over


def test_a_log_is_made_once_private_and_goes_with_its_pod(tmp_path):
    data = ContainerDisks(DataDefaults(tmp_path / "data", 1))
    path = data.make_log("p", "c")
    assert (path.stat().st_size, path.stat().st_mode & 0o777, path.stat().st_blocks) == (
        1 << 20,
        0o600,
        0,
    )
    path.write_bytes(b"kept")
    assert data.make_log("p", "c").read_bytes() == b"kept"
    assert (data.whose_log("p", path), data.whose_log("other", path)) == ("c", "")
    data.remove("p", "c")
    data.remove("p")
    data.remove("p")
    assert list((tmp_path / "data").iterdir()) == []


def test_a_copy_keeps_holes(tmp_path):
    source, target = tmp_path / "source", tmp_path / "target"
    with source.open("wb") as stream:
        stream.truncate(8 << 20)
        stream.seek(4 << 20)
        stream.write(b"in the middle")
    copy_sparse(source, target)
    assert target.read_bytes() == source.read_bytes()
    assert target.stat().st_blocks <= source.stat().st_blocks


async def test_the_last_lines_are_as_many_as_asked_for_though_more_are_written(log, monkeypatch):
    """A container that writes faster than its log is read must not make the tail longer."""
    for number in range(5):
        log.add(Kind.STDOUT, b"%d\n" % number)
    count = container_log._count

    async def then_written(*arguments):
        counted = await count(*arguments)
        for _ in range(100):
            log.add(Kind.STDOUT, b"later\n")
        log.add(Kind.STDOUT, b"unfinished")
        return counted

    monkeypatch.setattr(container_log, "_count", then_written)
    lines = [line.data async for line in container_log._all_of(log.path, "c", 2, None)]
    assert lines == [b"3\n", b"4\n"]
    assert [line async for line in container_log._all_of(log.path, "c", 0, None)] == []
