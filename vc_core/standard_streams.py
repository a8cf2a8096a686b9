"""Handles standard streams that are closed or cannot be written, as coreutils and Docker do."""

from __future__ import annotations

import errno
import io
import os
import select
import sys

TYPE_CHECKING = False  # not imported from typing, which takes longer to import than this module

if TYPE_CHECKING:
    from typing import Any, TextIO


NAMES = ("stdin", "stdout", "stderr")


def set_up() -> None:
    """Open /dev/null in place of each closed stream, and wrap stdout so that `unwritable` works.

    Otherwise the next opened file gets the descriptor of the closed stream, and output of the
    command is written to it.
    """
    for number, name in enumerate(NAMES):
        try:
            os.fstat(number)
        except OSError:
            os.open(
                os.devnull, os.O_RDWR if number else os.O_RDONLY
            )  # the lowest free number, which is this one
            os.set_inheritable(number, True)
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, "w" if number else "r", closefd=False))  # noqa: SIM115
    printed = sys.stdout
    if not isinstance(printed, io.TextIOWrapper):
        return  # replaced by the caller
    printed.flush()
    sys.stdout = io.TextIOWrapper(
        io.BufferedWriter(_Stdout()),
        encoding=printed.encoding,
        errors=printed.errors,
        line_buffering=printed.line_buffering,
        write_through=printed.write_through,
    )


class _Stdout(io.FileIO):
    """Descriptor 1; `failure` is the text of its last error."""

    failure = ""

    def __init__(self) -> None:
        super().__init__(1, "w", closefd=False)

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except OSError as error:
            _Stdout.failure = os.strerror(error.errno or errno.EIO)
            raise


def unwritable() -> str:
    """Why output could not be written to stdout; empty if it was written."""
    return _Stdout.failure or _reason(sys.stdout)


def finish() -> str:
    """Flush all output, so that the interpreter does not print its own error at exit.

    Returns:
        As `unwritable`.
    """
    failed = _Stdout.failure
    for number, stream in ((1, sys.stdout), (2, sys.stderr)):
        if reason := _reason(stream):
            failed = failed or (reason if number == 1 else "")
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, number)
            os.close(null)
            _reason(stream)
    return failed


def write_all(number: int, data: bytes) -> None:
    """Write data to stdout or stderr, also if the descriptor is non-blocking.

    Raises:
        BrokenPipeError: the reader has closed it.
        OSError: it cannot be written; the file name is that of the stream.
    """
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(number, view) :]
        except BlockingIOError:
            select.select([], [number], [])
        except BrokenPipeError:
            raise
        except OSError as error:
            raise OSError(
                error.errno, os.strerror(error.errno or errno.EIO), NAMES[number]
            ) from error


def read_some(count: int) -> bytes:
    """Read from stdin; empty at its end.

    Raises:
        OSError: it cannot be read.
    """
    while True:
        try:
            return os.read(0, count)
        except BlockingIOError:
            select.select([0], [], [])


def _reason(stream: TextIO) -> str:
    try:
        stream.flush()
    except OSError as error:
        return os.strerror(error.errno or errno.EIO)
    except ValueError:  # the stream was closed
        return ""
    return ""
