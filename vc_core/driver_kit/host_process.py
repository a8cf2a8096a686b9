"""A process of this host, by pid and start time: a pid alone is reused."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal as signals
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

_START_TICKS = (
    22 - 3
)  # places in what follows the command's name: proc(5) counts from 1, and that is field 2
_FLAGS, _THREADS = 9 - 3, 20 - 3
_USER_TICKS, _SYSTEM_TICKS, _RESIDENT_PAGES = 14 - 3, 15 - 3, 24 - 3
_EXITING = 0x4  # linux/sched.h, PF_EXITING
_PIPES_S = 5.0  # for the pipes of a killed process to end
_CHUNK_BYTES = 64 << 10


@dataclass(frozen=True)
class HostProcess:
    """A process, distinct from others that had or will have its pid.

    Attributes:
        pid: its process id.
        start_ticks: when it started, in clock ticks since boot: field 22 of proc(5)'s stat.
    """

    pid: int
    start_ticks: int

    @classmethod
    def of(cls, pid: int) -> Self:
        """The process that has this pid now.

        Raises ProcessLookupError or FileNotFoundError when there is none.
        """
        return cls(pid, int(_fields(pid)[_START_TICKS]))

    @classmethod
    def this(cls) -> Self:
        """The calling process."""
        return cls.of(os.getpid())

    @classmethod
    def find(cls, *words: str) -> Self | None:
        """The live process with all these words on its command line, when its pid was not noted."""
        return next(cls._all({word.encode() for word in words}), None)

    @classmethod
    def find_in(cls, folder: Path, *words: str) -> tuple[Self, ...]:
        """All live processes whose command line has all these words and that see `folder` as we do.

        For a driver whose state is lost: the words name a file of the machine, and a path is
        another file for a process of another mount namespace.
        """
        processes = cls._all({word.encode() for word in words})
        return tuple(process for process in processes if process.sees(folder))

    @classmethod
    def _all(cls, words: set[bytes]) -> Iterator[Self]:
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            try:
                if words <= set((entry / "cmdline").read_bytes().split(b"\0")):
                    process = cls.of(int(entry.name))
                    if process.is_alive():
                        yield process
            except (FileNotFoundError, ProcessLookupError, PermissionError):
                continue  # it ended, or belongs to another user

    def sees(self, folder: Path) -> bool:
        """Whether a folder's path is the same folder for it and for us."""
        own = Path(f"/proc/{self.pid}")
        try:
            if (own / "ns/mnt").readlink() == Path("/proc/self/ns/mnt").readlink():
                return True
            return (own / "root" / folder.relative_to("/")).samefile(folder)
        except OSError:
            return False  # it ended, belongs to another user, or has no such folder

    @property
    def program(self) -> str:
        """A path to the program that it runs, even when the program's file was replaced."""
        return f"/proc/{self.pid}/exe"

    def is_alive(self) -> bool:
        """Whether it runs.

        A zombie does not, nor does a process that is exiting: its sockets may be closed already.
        A process whose main thread has ended does while another of its threads runs.
        """
        fields = self._stat()
        return bool(fields) and (_runs(fields) or self._has_other_threads(fields))

    async def ended(self) -> None:
        """Returns when it has ended, and reaps it when it is ours."""
        with contextlib.suppress(ProcessLookupError):
            handle = os.pidfd_open(self.pid)
            try:
                if self._stat():
                    await _readable(handle)
            finally:
                os.close(handle)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.pid, os.WNOHANG)  # noqa: ASYNC222 (does not wait)

    async def ended_within(self, limit_s: float) -> bool:
        """Whether it has ended after so many seconds at most."""
        try:
            async with asyncio.timeout(limit_s):
                await self.ended()
        except TimeoutError:
            return False
        return True

    def send(self, signal: signals.Signals) -> None:
        """Signals it, and no other process that may have its pid by now."""
        with contextlib.suppress(ProcessLookupError):
            handle = os.pidfd_open(self.pid)
            try:
                if self.is_alive():
                    signals.pidfd_send_signal(handle, signal)
            finally:
                os.close(handle)

    async def kill(self, grace_s: float) -> None:
        """Ends it: by SIGTERM, and by SIGKILL when it lives after so many seconds.

        Returns when it has ended.
        """
        if self.is_alive():
            self.send(signals.SIGTERM)
            if not await self.ended_within(grace_s):
                self.send(signals.SIGKILL)
        await self.ended()

    def transfers(self) -> tuple[int, int]:
        """Bytes read from and written to disks: read_bytes and write_bytes of proc(5)'s io."""
        fields = dict(
            line.split(": ") for line in Path(f"/proc/{self.pid}/io").read_text().splitlines()
        )
        return int(fields["read_bytes"]), int(fields["write_bytes"])

    def usage(self) -> tuple[int, int]:
        """Processor time in nanoseconds and resident memory in bytes."""
        fields = _fields(self.pid)
        ticks = int(fields[_USER_TICKS]) + int(fields[_SYSTEM_TICKS])
        cpu_ns = ticks * 1_000_000_000 // os.sysconf("SC_CLK_TCK")
        return cpu_ns, int(fields[_RESIDENT_PAGES]) * os.sysconf("SC_PAGE_SIZE")

    def _has_other_threads(self, fields: list[str]) -> bool:
        """Whether a thread survives the main one. When all are ending, SIGKILL pends for each."""
        if int(fields[_THREADS]) < 2:
            return False
        for task in Path(f"/proc/{self.pid}/task").glob("[0-9]*"):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                status = (task / "status").read_text().partition("SigPnd:")[2]
                is_killed = int(status.split()[0], 16) >> signals.SIGKILL - 1 & 1
                if not is_killed and _runs(_split((task / "stat").read_text())):
                    return True
        return False

    def _stat(self) -> list[str]:
        """Its fields of proc(5)'s stat; empty when it has ended, even if its pid was reused."""
        try:
            fields = _fields(self.pid)
        except (FileNotFoundError, ProcessLookupError):
            return []
        return fields if int(fields[_START_TICKS]) == self.start_ticks else []


def _fields(pid: int) -> list[str]:
    """proc(5): after the command's closing parenthesis come the fields from number 3 on."""
    return _split(Path(f"/proc/{pid}/stat").read_text())


def _split(stat: str) -> list[str]:
    return stat.rpartition(")")[2].split()


def _runs(fields: list[str]) -> bool:
    return fields[0] not in "ZX" and not int(fields[_FLAGS]) & _EXITING


async def _readable(handle: int) -> None:
    loop = asyncio.get_running_loop()
    seen = asyncio.Event()
    loop.add_reader(handle, seen.set)
    try:
        await seen.wait()
    finally:
        loop.remove_reader(handle)


async def end_child(child: asyncio.subprocess.Process, is_leader: bool = False) -> None:
    """Kills a child of ours and returns when it has ended. One that has ended already is no error.

    asyncio tells of a child's end only when its pipes are closed, and a pipe that nobody reads
    stays open: so what is left in them is read, and thrown away.

    Args:
        child: whom nobody reads from any more.
        is_leader: whether it has a session of its own, and what it has started ends with it.
    """
    if child.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            if is_leader:
                os.killpg(child.pid, signals.SIGKILL)
            else:
                os.kill(
                    child.pid, signals.SIGKILL
                )  # child.kill() may take the child's end from asyncio: gh-127049
    # What it has started may live on with its pipes, in a session of its own. Nobody waits for
    # that.
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_PIPES_S):
            await asyncio.gather(
                *(_discard(stream) for stream in (child.stdout, child.stderr) if stream is not None)
            )
            await child.wait()
    if child.returncode is not None:
        # Process has no public way to close pipes that somebody else holds open.
        child._transport.close()  # type: ignore[attr-defined]  # noqa: SLF001


async def _discard(stream: asyncio.StreamReader) -> None:
    while await stream.read(_CHUNK_BYTES):
        pass
