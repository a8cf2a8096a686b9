"""A file that the kernel keeps from growing, on each kind of file system that a run folder may lie
on.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from vc_qemu import bounded_file

ROOM = 20000


@pytest.fixture(
    params=["/dev/shm", "/var/tmp"]
)  # a tmpfs, whose files may be as long as an offset can say; a disk
def file(request):
    with tempfile.TemporaryDirectory(dir=request.param) as folder:
        yield Path(folder) / "console"


def _append(handle: int, data: bytes) -> int:
    """As a serial port does, byte by byte; how many were taken."""
    taken = 0
    for byte in data:
        try:
            taken += os.write(handle, bytes([byte]))
        except OSError:
            break
    return taken


def _appending(file: Path) -> int:
    return os.open(file, os.O_WRONLY | os.O_APPEND)


def test_a_file_takes_no_more_than_its_room(file):
    bounded_file.make(file, ROOM)
    assert (bounded_file.length(file, ROOM), bounded_file.tail(file, 100, ROOM)) == (0, b"")
    assert file.stat().st_mode & 0o777 == 0o600
    writer = _appending(file)
    assert _append(writer, b"begin" + b"x" * (ROOM - 8) + b"end and more") == ROOM
    os.close(writer)
    assert bounded_file.length(file, ROOM) == ROOM
    assert bounded_file.tail(file, 4, ROOM) == b"xend"
    assert bounded_file.tail(file, 10 * ROOM, ROOM)[:6] == b"beginx"
    assert file.stat().st_blocks * 512 <= ROOM + 3 * 4096


def test_a_full_file_that_was_trimmed_takes_new_text(file):
    bounded_file.make(file, ROOM)
    writer = _appending(file)
    _append(writer, b"x" * ROOM + b"lost")
    bounded_file.trim(file, 100, ROOM)
    os.close(writer)
    writer = _appending(file)  # what Monitor.reopen has QEMU do
    assert _append(writer, b"new") == 3
    os.close(writer)
    assert bounded_file.tail(file, ROOM, ROOM) == b"x" * 100 + b"new"


def test_a_file_is_trimmed_while_its_writer_appends(file):
    bounded_file.make(file, ROOM)
    with file.open("ab", buffering=0) as writer:
        writer.write(b"a" * 1000 + b"end")
        bounded_file.trim(file, 50, ROOM)
        writer.write(b" more")
    assert bounded_file.tail(file, ROOM, ROOM) == b"a" * 47 + b"end more"


def test_a_file_of_a_machine_that_an_older_version_started_is_read_and_trimmed(file):
    file.write_bytes(b"x" * 5000 + b"end")
    assert (bounded_file.length(file, ROOM), bounded_file.tail(file, 4, ROOM)) == (5003, b"xend")
    bounded_file.trim(file, 100, ROOM)
    assert file.read_bytes() == b"x" * 97 + b"end"


def test_a_user_whose_files_are_limited_has_that_limit(file):
    imports = "from pathlib import Path; from vc_qemu import bounded_file"
    program = f"{imports}; bounded_file.make(Path({str(file)!r}), {ROOM})"
    limited = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192))  # noqa: E731
    subprocess.run([sys.executable, "-c", program], check=True, preexec_fn=limited)
    assert file.stat().st_size == 0
    with file.open("ab", buffering=0) as writer:
        writer.write(b"text")
    assert bounded_file.tail(file, 100, ROOM) == b"text"


def test_no_file_no_text(file):
    assert (bounded_file.length(file, ROOM), bounded_file.tail(file, 100, ROOM)) == (0, b"")
