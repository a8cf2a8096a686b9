"""A QEMU process: started, recognised by others, waited for, ended. Never by number alone: numbers are reused."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from vc_qemu.errors import QemuError

_ABOVE = 64


@dataclass(frozen=True)
class Identity:
    """A process and no other.

    Attributes:
        pid: its number.
        start_ticks: when it began, in clock ticks since boot: field 22 of proc(5)'s stat.
    """

    pid: int
    start_ticks: int


def spawn(command: Sequence[str], log: Path, descriptors: Mapping[int, int]) -> Identity:
    """Starts a program in a session of its own, its words going to a log.

    Args:
        command: argv with the program's path first.
        log: appended to.
        descriptors: number in the child to number here.

    Raises:
        QemuError: the program cannot be executed.
    """
    actions: list[tuple[object, ...]] = [
        (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, str(log), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600),
        (os.POSIX_SPAWN_DUP2, 1, 2),
    ]
    # Copies above all numbers of the child's: making one there must not overwrite another that is still to be copied.
    high = {theirs: fcntl.fcntl(ours, fcntl.F_DUPFD_CLOEXEC, _ABOVE) for theirs, ours in descriptors.items()}
    actions += ((os.POSIX_SPAWN_DUP2, ours, theirs) for theirs, ours in high.items())
    defaults = [signal.SIGPIPE, signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
    try:
        pid = os.posix_spawn(
            command[0],
            list(command),
            dict(os.environ),
            file_actions=actions,
            setsid=True,
            setsigdef=defaults,
            setsigmask=[],
        )
    except OSError as error:
        raise QemuError(f"{command[0]} cannot be run: {error.strerror}") from error
    finally:
        for copy in high.values():
            os.close(copy)
    return identity_of(pid)


def identity_of(pid: int) -> Identity:
    """The process that has this number now."""
    return Identity(pid, _stat(pid)[1])


def is_alive(identity: Identity) -> bool:
    """Whether it runs. One that has ended but was not waited for does not."""
    try:
        state, ticks = _stat(identity.pid)
    except (FileNotFoundError, ProcessLookupError):
        return False
    return ticks == identity.start_ticks and state not in "ZX"


async def ended(identity: Identity) -> None:
    """Returns when it has ended, and reaps it when it is ours."""
    with contextlib.suppress(ProcessLookupError):
        handle = os.pidfd_open(identity.pid)
        try:
            if is_alive(identity):
                await _readable(handle)
        finally:
            os.close(handle)
    with contextlib.suppress(ChildProcessError):
        os.waitpid(identity.pid, os.WNOHANG)  # noqa: ASYNC222 (does not wait)


def send(identity: Identity, number: signal.Signals) -> None:
    """Signals it, and no other that may have its number by now."""
    with contextlib.suppress(ProcessLookupError):
        handle = os.pidfd_open(identity.pid)
        try:
            if is_alive(identity):
                signal.pidfd_send_signal(handle, number)
        finally:
            os.close(handle)


def find(uuid: str) -> Identity | None:
    """The QEMU that was started with this uuid: for whoever was killed before it could write a number down."""
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
            if b"-uuid" in words and uuid.encode() in words:
                found = identity_of(int(entry.name))
                if is_alive(found):
                    return found
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue  # it ended, or is somebody else's
    return None


def usage(identity: Identity) -> tuple[int, int]:
    """Processor time in nanoseconds and resident memory in bytes."""
    fields = _fields(identity.pid)
    ticks = int(fields[14 - 3]) + int(fields[15 - 3])
    cpu_ns = ticks * 1_000_000_000 // os.sysconf("SC_CLK_TCK")
    return cpu_ns, int(fields[24 - 3]) * os.sysconf("SC_PAGE_SIZE")


def _stat(pid: int) -> tuple[str, int]:
    fields = _fields(pid)
    return fields[0], int(fields[22 - 3])


def _fields(pid: int) -> list[str]:
    """proc(5): after the command's closing parenthesis come the fields from number 3 on."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


async def _readable(handle: int) -> None:
    loop = asyncio.get_running_loop()
    seen = asyncio.Event()
    loop.add_reader(handle, seen.set)
    try:
        await seen.wait()
    finally:
        loop.remove_reader(handle)
