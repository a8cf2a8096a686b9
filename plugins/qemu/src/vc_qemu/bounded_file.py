"""A file to which another process appends, with a size limit enforced by the kernel.

No file extends beyond the largest offset of its file system (s_maxbytes: 8 EiB on tmpfs, 16 TiB on
ext4). A bounded file starts with a hole, which takes no space, so that the room for text behind it
is fixed. A write beyond it fails and changes nothing. Therefore no process has to watch the file,
and it works for ordinary users, too.
"""

from __future__ import annotations

import errno
import os
import resource
from pathlib import Path

_LARGEST = (1 << 63) - 1  # maximum of loff_t


def make(file: Path, room: int) -> None:
    """Creates a file for at most `room` bytes. It must not exist.

    Where the user's own limit of file sizes (RLIMIT_FSIZE) forbids the hole, that limit is
    the bound.
    """
    handle = os.open(file, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        start = _end(handle) - room
        if start <= _user_limit():
            os.ftruncate(handle, start)
    finally:
        os.close(handle)


def length(file: Path, room: int) -> int:
    """Returns the number of bytes of text in a file; 0 when it does not exist."""
    try:
        handle = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return 0
    try:
        return os.fstat(handle).st_size - _start(handle, room)
    finally:
        os.close(handle)


def tail(file: Path, size: int, room: int) -> bytes:
    """Returns the last bytes of a file's text; none when it does not exist."""
    try:
        handle = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return b""
    try:
        return _read(handle, size, room)
    finally:
        os.close(handle)


def trim(file: Path, kept_bytes: int, room: int) -> None:
    """Keeps the end of a file's text. Another process may append to it meanwhile."""
    handle = os.open(file, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC)
    try:
        start = _start(handle, room)
        if start > _user_limit():
            return  # writing back what is kept would be impossible
        kept = _read(handle, kept_bytes, room)
        os.ftruncate(handle, start)
        os.write(handle, kept)  # both sides append, so nothing is overwritten
    except OSError as error:
        if error.errno != errno.EFBIG:
            raise
        # The writer has filled the file again in between: then that is the end of its text.
    finally:
        os.close(handle)


def _read(handle: int, size: int, room: int) -> bytes:
    end = os.fstat(handle).st_size
    first = max(_start(handle, room), end - size)
    parts = []
    while first < end and (
        part := os.pread(handle, end - first, first)
    ):  # exact: no read may reach beyond _LARGEST
        parts.append(part)
        first += len(part)
    return b"".join(parts)


def _start(handle: int, room: int) -> int:
    """Returns where the text starts: behind the hole, or at 0 in a file that has none."""
    start = _end(handle) - room
    return start if os.fstat(handle).st_size >= start else 0


def _end(handle: int) -> int:
    """Returns the largest offset of the file system of an open file."""
    low, high = 0, _LARGEST
    while low < high:
        middle = high - (high - low) // 2
        try:
            os.lseek(handle, middle, os.SEEK_SET)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            high = middle - 1
        else:
            low = middle
    os.lseek(handle, 0, os.SEEK_SET)  # the kernel checks it even where a write appends
    return low


def _user_limit() -> int:
    limit, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
    return _LARGEST if limit == resource.RLIM_INFINITY else limit
