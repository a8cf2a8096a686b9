"""Taking the memory out of a saved state: streams built here byte by byte, as QEMU's
migration/ram.c writes them.
"""

from __future__ import annotations

import io
import os
import struct
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from vc_qemu import migration_stream
from vc_qemu.errors import QemuError

PAGE = 4096
TAIL = b"\x04the devices, whose format nobody here has to know\x00"
COMMAND = struct.pack(">BHH", 8, 11, 4) + b"\x03\x02\x01\x00"


def text(name: str) -> bytes:
    return bytes([len(name)]) + name.encode()


def head(*, subsection: str = "configuration/capabilities") -> bytes:
    machine = b"pc-q35-7.2"
    capabilities = struct.pack(">I", 1) + text("x-ignore-shared")
    configuration = struct.pack(">BI", 7, len(machine)) + machine
    return (
        b"QEVM"
        + struct.pack(">I", 3)
        + configuration
        + b"\x05"
        + text(subsection)
        + struct.pack(">I", 1)
        + capabilities
    )


def sizes(blocks: dict[str, int]) -> bytes:
    listed = b"".join(text(name) + struct.pack(">QQ", size, 0) for name, size in blocks.items())
    return struct.pack(">Q", sum(blocks.values()) | 0x04) + listed


def page(block: str, address: int, data: bytes) -> bytes:
    """A page of 4096 bytes, or of one that fills it. An empty block's name: the same as before."""
    flags = (0x08 if len(data) == PAGE else 0x02) | (0 if block else 0x20)
    return struct.pack(">Q", address | flags) + (text(block) if block else b"") + data


def section(kind: int, *records: bytes, number: int = 2) -> bytes:
    opening = text("ram") + struct.pack(">II", 0, 4) if kind == 1 else b""
    records = (*records, struct.pack(">Q", 0x10))
    return (
        struct.pack(">BI", kind, number)
        + opening
        + b"".join(records)
        + struct.pack(">BI", 0x7E, number)
    )


def split(data: bytes, folder: Path, *blocks: str) -> tuple[bytes, dict[str, bytes]]:
    rest = io.BytesIO()
    files = {name: folder / name for name in blocks}
    migration_stream.split(memoryview(data), rest, files)
    return rest.getvalue(), {name: path.read_bytes() for name, path in files.items()}


def test_pages_go_into_files_and_the_rest_stays(tmp_path: Path) -> None:
    ones, twos, rom = b"\x01" * PAGE, b"\x02" * PAGE, b"\x03" * PAGE
    start = sizes({"ram": 4 * PAGE, "rom": PAGE})
    data = (
        head()
        + section(1, start)
        + section(2, page("ram", 0, ones), page("", 2 * PAGE, b"\0"), page("rom", 0, rom))
        + COMMAND
        + section(3, page("ram", 3 * PAGE, twos), page("", PAGE, b"\x05"))
        + TAIL
    )
    rest, files = split(data, tmp_path, "ram")
    assert files["ram"] == ones + b"\x05" * PAGE + bytes(PAGE) + twos
    assert (
        rest
        == head()
        + section(1, start)
        + section(2, page("rom", 0, rom))
        + COMMAND
        + section(3)
        + TAIL
    )


def test_the_last_of_a_page_is_the_one_that_counts(tmp_path: Path) -> None:
    """The guest runs while its memory is saved, so pages come again."""
    ones, twos = b"\x01" * PAGE, b"\x02" * PAGE
    data = (
        head()
        + section(1, sizes({"ram": 4 * PAGE}))
        + section(2, page("ram", 0, ones), page("", PAGE, ones), page("", 2 * PAGE, ones))
        + section(2, page("ram", 3 * PAGE, b"\0"))
        + section(3, page("ram", PAGE, b"\0"), page("", 2 * PAGE, twos), page("", 3 * PAGE, ones))
        + TAIL
    )
    _, files = split(data, tmp_path, "ram")
    assert files["ram"] == ones + bytes(PAGE) + twos + ones


def test_runs_of_pages_come_out_as_they_were(tmp_path: Path) -> None:
    """Longer than what one call writes, with a gap, and with the block named in between."""
    numbers = [*range(1300), *range(1400, 1410)]
    pages = {number: number.to_bytes(4, "big") * (PAGE // 4) for number in numbers}
    names = {0: "ram", 700: "ram"}
    records = [page(names.get(n, ""), n * PAGE, data) for n, data in pages.items()]
    data = head() + section(1, sizes({"ram": 1500 * PAGE})) + section(3, *records) + TAIL
    _, files = split(data, tmp_path, "ram")
    assert files["ram"] == b"".join(pages.get(number, bytes(PAGE)) for number in range(1500))


def test_pages_of_which_the_kernel_takes_only_a_part_are_written_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a disk that is almost full, for a moment."""
    pwrite = os.pwrite
    monkeypatch.setattr(os, "pwritev", lambda handle, pages, at: pwrite(handle, pages[0][:9], at))
    monkeypatch.setattr(os, "pwrite", lambda handle, page, at: pwrite(handle, page[:1000], at))
    ones, twos = b"\x01" * PAGE, b"\x02" * PAGE
    records = (page("ram", 0, ones), page("", PAGE, twos), page("", 0, b"\0"))
    data = head() + section(1, sizes({"ram": 2 * PAGE})) + section(3, *records) + TAIL
    _, files = split(data, tmp_path, "ram")
    assert files["ram"] == bytes(PAGE) + twos


def test_a_full_disk_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "pwritev", lambda *_: 0)
    monkeypatch.setattr(os, "pwrite", lambda *_: 0)
    records = page("ram", 0, b"\x01" * PAGE)
    data = head() + section(1, sizes({"ram": PAGE})) + section(3, records) + TAIL
    with pytest.raises(OSError, match="No space left"):
        split(data, tmp_path, "ram")


def test_pages_that_nobody_wrote_take_no_room(tmp_path: Path) -> None:
    size = 64 << 20
    data = (
        head()
        + section(1, sizes({"ram": size}))
        + section(3, page("ram", size - PAGE, b"x" * PAGE))
        + TAIL
    )
    split(data, tmp_path, "ram")
    found = (tmp_path / "ram").stat()
    assert found.st_size == size
    assert found.st_blocks * 512 <= 1 << 20


@settings(max_examples=50, deadline=None)
@given(
    st.dictionaries(st.integers(0, 15), st.binary(min_size=1, max_size=8), max_size=16),
    st.integers(1, 5),
)
def test_any_memory_comes_out_as_it_was(
    tmp_path_factory: pytest.TempPathFactory, pages: dict[int, bytes], cut: int
) -> None:
    full = {number: (data * PAGE)[:PAGE] for number, data in pages.items()}
    records = [page("ram", number * PAGE, data) for number, data in full.items()]
    parts = [section(2, *records[begin : begin + cut]) for begin in range(0, len(records), cut)]
    data = head() + section(1, sizes({"ram": 16 * PAGE})) + b"".join(parts) + section(3) + TAIL
    _, files = split(data, tmp_path_factory.mktemp("pages"), "ram")
    assert files["ram"] == b"".join(full.get(number, bytes(PAGE)) for number in range(16))


def test_a_state_that_ends_too_early_is_refused_wherever_it_ends(tmp_path: Path) -> None:
    whole = head() + section(1, sizes({"ram": PAGE})) + section(3, page("ram", 0, b"x" * PAGE))
    for length in [*range(len(whole) - PAGE - 32), len(whole) - PAGE, len(whole) - 1, len(whole)]:
        folder = tmp_path / str(length)
        folder.mkdir()
        with pytest.raises(QemuError):
            split(whole[:length], folder, "ram")


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"QEVM" + struct.pack(">I", 2), "another format"),
        (b"#!/bin/sh\n", "another format"),
        (head(subsection="configuration/new"), "configuration/new"),
        (head() + b"\x01" + struct.pack(">I", 1) + text("dirty-bitmap") + TAIL, "dirty-bitmap"),
        (head() + section(1, sizes({"rom": PAGE})) + section(3) + TAIL, "lacks the memory ram"),
        (head() + section(1, sizes({"ram": PAGE})) + TAIL, "unknown part: kind 4"),
        (head() + section(1, sizes({"ram": PAGE}), struct.pack(">Q", 0x40) + text("ram")), "0x40"),
        (
            head() + section(1, sizes({"ram": PAGE}))[:-4] + b"oops" + TAIL,
            "section without its footer",
        ),
    ],
)
def test_what_is_not_understood_is_refused_by_name(tmp_path: Path, data: bytes, said: str) -> None:
    with pytest.raises(QemuError, match=said):
        split(data, tmp_path, "ram")
