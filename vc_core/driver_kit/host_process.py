"""A process of this host, by pid and start time: a pid alone is reused."""

from __future__ import annotations

import contextlib
import os
import signal as signals
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Self

from msgspec import Struct

if TYPE_CHECKING:
    import asyncio

_START_TICKS = (
    22 - 3
)  # index among the fields after the command's name: proc(5) counts from 1, and that is field 2
_FLAGS, _THREADS = 9 - 3, 20 - 3
_USER_TICKS, _SYSTEM_TICKS, _RESIDENT_PAGES = 14 - 3, 15 - 3, 24 - 3
_EXITING = 0x4  # linux/sched.h, PF_EXITING
_PIPES_S = 5.0  # for the pipes of a killed process to end
_CHUNK_BYTES = 64 << 10


class HostProcess(Struct, frozen=True):
    """A process, distinguished from earlier and later ones with the same pid.

    Attributes:
        pid: its process id.
        start_ticks: its start time, in clock ticks since boot: field 22 of proc(5)'s stat.
    """

    pid: int
    start_ticks: int

    @classmethod
    def of(cls, pid: int) -> Self:
        """Returns the process that has this pid now.

        Raises ProcessLookupError or FileNotFoundError when there is none.
        """
        return cls(pid, int(_fields(pid)[_START_TICKS]))

    @classmethod
    def this(cls) -> Self:
        """Returns the calling process."""
        return cls.of(os.getpid())

    @classmethod
    def find(cls, *words: str) -> Self | None:
        """Returns the live process with all these words on its command line, for an unknown pid."""
        return next(cls._all({word.encode() for word in words}), None)

    @classmethod
    def find_in(cls, folder: Path, *words: str) -> tuple[Self, ...]:
        """Returns all live processes with these words that see the same `folder`.

        For a driver whose state is lost: the words name a file of the machine, and in another mount
        namespace the same path may name another file.
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
        """Returns whether a folder's path names the same folder for it and for this process."""
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
        """Returns whether it runs.

        A zombie does not, nor does a process that is exiting: its sockets may be closed already.
        A process whose main thread has ended does while another of its threads runs.
        """
        fields = self._stat()
        return bool(fields) and (_runs(fields) or self._has_other_threads(fields))

    async def ended(self) -> None:
        """Returns when it has ended, and reaps it if it is a child."""
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
        """Returns whether it has ended after at most `limit_s` seconds."""
        from vc_core.driver_kit.timeouts import timeout_after

        try:
            async with timeout_after(limit_s):
                await self.ended()
        except TimeoutError:
            return False
        return True

    def send(self, signal: signals.Signals) -> None:
        """Sends it a signal, and never to another process with the same pid."""
        with contextlib.suppress(ProcessLookupError):
            handle = os.pidfd_open(self.pid)
            try:
                if self.is_alive():
                    signals.pidfd_send_signal(handle, signal)
            finally:
                os.close(handle)

    async def kill(self, grace_s: float) -> None:
        """Ends it: by SIGTERM, and by SIGKILL when it still runs after `grace_s` seconds.

        Returns when it has ended.
        """
        if self.is_alive():
            self.send(signals.SIGTERM)
            if not await self.ended_within(grace_s):
                self.send(signals.SIGKILL)
        await self.ended()

    def transfers(self) -> tuple[int, int]:
        """Returns bytes read from and written to disks: read_bytes, write_bytes of proc(5)'s io."""
        fields = dict(
            line.split(": ") for line in Path(f"/proc/{self.pid}/io").read_text().splitlines()
        )
        return int(fields["read_bytes"]), int(fields["write_bytes"])

    def usage(self) -> tuple[int, int]:
        """Returns processor time in nanoseconds and resident memory in bytes."""
        fields = _fields(self.pid)
        ticks = int(fields[_USER_TICKS]) + int(fields[_SYSTEM_TICKS])
        cpu_ns = ticks * 1_000_000_000 // os.sysconf("SC_CLK_TCK")
        return cpu_ns, int(fields[_RESIDENT_PAGES]) * os.sysconf("SC_PAGE_SIZE")

    def _has_other_threads(self, fields: list[str]) -> bool:
        """Returns whether another thread survives the main one.

        When all threads are ending, SIGKILL is pending for each.
        """
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
        """Returns its fields of proc(5)'s stat; empty when it has ended or its pid is reused."""
        try:
            fields = _fields(self.pid)
        except (FileNotFoundError, ProcessLookupError):
            return []
        return fields if int(fields[_START_TICKS]) == self.start_ticks else []


def _fields(pid: int) -> list[str]:
    """Returns the fields of proc(5)'s stat after the command's closing parenthesis."""
    return _split(Path(f"/proc/{pid}/stat").read_text())


def _split(stat: str) -> list[str]:
    return stat.rpartition(")")[2].split()


def _runs(fields: list[str]) -> bool:
    return fields[0] not in "ZX" and not int(fields[_FLAGS]) & _EXITING


async def _readable(handle: int) -> None:
    import asyncio

    loop = asyncio.get_running_loop()
    seen = asyncio.Event()
    loop.add_reader(handle, seen.set)
    try:
        await seen.wait()
    finally:
        loop.remove_reader(handle)


async def end_child(child: asyncio.subprocess.Process, is_leader: bool = False) -> None:
    """Kills a child process and returns when it has ended. One that has ended already is no error.

    asyncio reports a child's end only when its pipes are closed, and a pipe that is not read stays
    open: therefore remaining data is read and discarded.

    Args:
        child: a child whose output is not read any more.
        is_leader: whether it leads a session of its own, whose processes are killed, too.
    """
    import asyncio

    from vc_core.driver_kit.timeouts import timeout_after

    if child.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            if is_leader:
                os.killpg(child.pid, signals.SIGKILL)
            else:
                os.kill(
                    child.pid, signals.SIGKILL
                )  # child.kill() may take the child's end from asyncio: gh-127049
    # Its children may keep its pipes open in sessions of their own. These are not waited for.
    with contextlib.suppress(TimeoutError):
        async with timeout_after(_PIPES_S):
            await asyncio.gather(
                *(_discard(stream) for stream in (child.stdout, child.stderr) if stream is not None)
            )
            await child.wait()
    if child.returncode is not None:
        # Process has no public way to close pipes that another process keeps open.
        child._transport.close()  # type: ignore[attr-defined]  # noqa: SLF001


async def _discard(stream: asyncio.StreamReader) -> None:
    while await stream.read(_CHUNK_BYTES):
        pass
