"""Leaves a process behind that becomes a stand-in, and tells its pid.

The child does all the work that the stand-in needs, and is then replaced by it: the pid stays, and
with it the channel to the guest. It is forked before anything starts threads. The caller's streams
are put aside meanwhile, so that nothing else that is started gets them.
"""

from __future__ import annotations

import array
import contextlib
import errno
import fcntl
import os
import pty
import socket
import termios
import tty
from collections.abc import Callable, Sequence
from pathlib import Path

from vc_runtime.errors import RuntimeFailure

_REPORT = 3
_OK = b"ok"
_ABOVE = 64
_LONGEST_REPORT = 64 << 10

Work = Callable[[], Sequence[str]]
"""Does all that comes before, and returns the stand-in's command line."""


def leave(work: Work, console: str, explain: Callable[[Exception], str]) -> int:
    """Returns the pid of the child, when it stands in.

    Args:
        work: called in the child.
        console: path of the socket that gets the terminal; empty for none.
        explain: returns the text for an error of `work`.

    Raises:
        RuntimeFailure: it has failed; nothing is left of the child.
    """
    close_inherited()
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        _become(work, console, writing, explain)
    os.close(writing)
    with open(reading, "rb") as report:  # noqa: PTH123 (a descriptor)
        told = report.read(_LONGEST_REPORT)
    if told == _OK:
        return pid
    _, status = os.waitpid(pid, 0)
    ended = f"the stand-in has ended with {os.waitstatus_to_exitcode(status)}"
    raise RuntimeFailure(told.decode(errors="replace").strip() or ended)


def write_pid(file: Path | None, pid: int) -> None:
    """Writes a pid file, as the last step: the caller reads it when it appears."""
    if file is not None:
        half = file.with_name(f".{file.name}.{os.getpid()}")
        half.write_text(str(pid))
        half.replace(file)


def close_inherited() -> None:
    """Closes what the caller has left open: a stand-in would keep it open for its life."""
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208 (names are what is needed)
        if int(name) > 2:
            with contextlib.suppress(OSError):  # that of the listing
                os.close(int(name))


def become(work: Work, console: str) -> None:
    """Replaces this process by the stand-in; a child tells on stderr why that is not connected.

    Raises:
        Exception: of `work`.
        RuntimeFailure: the terminal cannot be handed over.
    """
    close_inherited()
    reading, writing = os.pipe()
    if os.fork() == 0:
        os.close(writing)
        with open(reading, "rb") as report:  # noqa: PTH123 (a descriptor)
            told = report.read(_LONGEST_REPORT)
        if told != _OK:
            os.write(2, told + b"\n" if told else b"")
        os._exit(0)
    os.close(reading)
    _stand_in(work, console, writing)


def _stand_in(work: Work, console: str, report: int) -> None:
    """Does the work, and replaces this process by the stand-in, which writes to `report`."""
    report = fcntl.fcntl(report, fcntl.F_DUPFD_CLOEXEC, _ABOVE)
    streams = [fcntl.fcntl(number, fcntl.F_DUPFD_CLOEXEC, _ABOVE) for number in range(3)]
    null = os.open(os.devnull, os.O_RDWR)
    for number in range(3):
        os.dup2(null, number)
    try:
        words = work()
        if console:
            streams = [_terminal(console)] * 3
    finally:
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
    if console:
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    os.dup2(report, _REPORT)
    os.chdir("/")
    os.execve(words[0], tuple(words), {"PATH": os.defpath})  # noqa: S606 (no shell is needed)


def _become(work: Work, console: str, report: int, explain: Callable[[Exception], str]) -> None:
    code = 1
    try:
        os.setsid()
        _stand_in(work, console, report)
    except Exception as error:
        with contextlib.suppress(OSError):  # the parent was killed
            os.write(report, explain(error).encode()[:_LONGEST_REPORT])
    finally:
        os._exit(code)


def _terminal(console: str) -> int:
    """Makes a terminal in raw mode, sends its master side, and returns the other one."""
    master, slave = pty.openpty()
    try:
        tty.setraw(slave, termios.TCSANOW)
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(console)
            rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [master]))
            connection.sendmsg([os.ttyname(slave).encode()], [rights])
    except OSError as error:
        name = errno.errorcode.get(error.errno or 0, "")
        raise RuntimeFailure(f"the console socket {console} cannot be used: {name}") from error
    finally:
        os.close(master)
    return slave
