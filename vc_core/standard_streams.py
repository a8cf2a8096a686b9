"""Our standard streams where they are closed or cannot be written, as coreutils and docker treat
them.
"""

from __future__ import annotations

import errno
import io
import os
import select
import sys

TYPE_CHECKING = False  # as typing has it, which takes longer to import than all of this

if TYPE_CHECKING:
    from typing import Any, TextIO


NAMES = ("stdin", "stdout", "stderr")


def set_up() -> None:
    """Opens /dev/null in the place of each stream that is closed; remembers why stdout could not be
    written.

    Else the next file that is opened gets a closed one's number, and a command's output is written
    to it.
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
        return  # somebody's own, who looks after it
    printed.flush()
    sys.stdout = io.TextIOWrapper(
        io.BufferedWriter(_Stdout()),
        encoding=printed.encoding,
        errors=printed.errors,
        line_buffering=printed.line_buffering,
        write_through=printed.write_through,
    )


class _Stdout(io.FileIO):
    """Descriptor 1. Where an OSError is caught, `failure` says whether it was this one's."""

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
    """Why what was printed cannot be written to stdout; empty when all of it has been."""
    return _Stdout.failure or _reason(sys.stdout)


def finish() -> str:
    """Writes what is left to be printed; nothing is left for the interpreter's end, which would
    print its own error.

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
    """Writes all of it to stdout or stderr, waiting where that does not block.

    Raises:
        BrokenPipeError: nobody reads it any more.
        OSError: it cannot be written; names the stream.
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
    """Input as it comes; empty at its end.

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
    except ValueError:  # it was closed by somebody
        return ""
    return ""
