"""Reads a container's log, also after the container, its machine and its creator have ended."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Awaitable, Iterable, Iterator
from contextlib import AsyncExitStack, aclosing
from pathlib import Path
from typing import Self

from msgspec import Struct

from vc_core.engine.host.container_disks import ContainerDisks
from vc_core.engine.resources import devices
from vc_core.engine.session.exit_reason import ENDED
from vc_core.engine.session.session import Session
from vc_core.engine.session.sessions import Sessions
from vc_core.spec.errors import NotFound
from vc_core.spec.log_format import Kind, Reader, Record
from vc_core.spec.values import Capability, ContainerSpec, HostDevice, Plugged, Stdio, StreamName

log = logging.getLogger(__name__)

_NEEDED = {Capability.LOG, Capability.DRIVE_PLUG}
_STREAMS = {Kind.STDOUT: StreamName.STDOUT, Kind.STDERR: StreamName.STDERR}

MAX_LINE_BYTES = 1 << 20
"""Maximum size of a line in bytes.

A longer line is split into several, of which the last one has the newline.
"""
_ALL = 1 << 62
_BATCH = 256


class LogLine(Struct, frozen=True):
    """One line of a container's output.

    Attributes:
        time_ns: time of its first bytes, by the guest's clock, in nanoseconds since the epoch.
        stream: the stream on which it was written.
        data: including the newline, which may be missing in the last line of a process, and is
            missing in the parts of a line beyond MAX_LINE_BYTES.
    """

    time_ns: int
    stream: StreamName
    data: bytes


async def plug(session: Session, disks: ContainerDisks, spec: ContainerSpec) -> Plugged | None:
    """Adds the log disk of a container that has Stdio.LOG to the machine, creating it if necessary.

    Undone by `devices.release`. Returns None, with a warning, where no disk can be plugged: the
    container runs without a log.
    """
    if spec.stdio is not Stdio.LOG:
        return None
    if not session.capabilities >= _NEEDED:
        log.warning(
            (
                "the output of container %s is thrown away: "
                "the chosen plugins cannot plug a disk for it"
            ),
            spec.id,
        )
        return None
    device = HostDevice(path=disks.make_log(session.pod.id, spec.id), destination="")
    return (await devices.acquire(session, device, spec.id)).plugged[0]


class Lines:
    """Joins records to lines, separately for each stream.

    Attributes:
        skip: number of next lines that are left out at little cost, because a guest can write
            millions.
        is_over: whether the records say that the process has ended.
    """

    def __init__(self, skip: int = 0) -> None:
        self._begun: dict[StreamName, tuple[int, bytearray]] = {}
        self.skip = skip
        self.is_over = False

    def all_of(self, records: Iterable[Record]) -> list[LogLine]:
        """Returns the lines that these records complete."""
        return [line for record in records for line in self.feed(record)]

    def feed(self, record: Record) -> Iterator[LogLine]:
        """Yields the lines that this record completes."""
        self.is_over = record.kind is Kind.LAST
        if record.kind not in _STREAMS:
            yield from self.rest()
            return
        stream, data = _STREAMS[record.kind], record.data
        if self.skip and 0 < (ends := data.count(b"\n")) <= self.skip:
            self.skip -= ends
            self._begun.pop(stream, None)
            data = data[data.rindex(b"\n") + 1 :]
        for piece in _lines(data):
            time_ns, begun = self._begun.setdefault(stream, (record.time_ns, bytearray()))
            begun += piece
            if piece.endswith(b"\n") or len(begun) >= MAX_LINE_BYTES:
                del self._begun[stream]
                yield from self._unless_skipped(LogLine(time_ns, stream, bytes(begun)))

    def rest(self) -> list[LogLine]:
        """Returns the incomplete lines."""
        left = [
            LogLine(time_ns, stream, bytes(data)) for stream, (time_ns, data) in self._begun.items()
        ]
        self._begun.clear()
        return [
            kept
            for line in sorted(left, key=lambda line: line.time_ns)
            for kept in self._unless_skipped(line)
        ]

    def _unless_skipped(self, line: LogLine) -> Iterator[LogLine]:
        if self.skip:
            self.skip -= 1
        else:
            yield line


def _lines(data: bytes) -> list[bytes]:
    """Splits at newlines only: output for a terminal contains carriage returns within a line."""
    *whole, last = data.split(b"\n")
    return [*(line + b"\n" for line in whole), *([last] if last else [])]


async def read(
    sessions: Sessions,
    disks: ContainerDisks,
    container_id: str,
    follow: bool = False,
    tail: int | None = None,
    since_ns: int = 0,
) -> AsyncGenerator[LogLine, None]:
    """Yields the lines of a container's log, oldest first.

    The lines are not collected in memory, because the guest controls their number.

    Args:
        sessions: sessions of its pod.
        disks: disks of containers, including the log.
        container_id: id of the container.
        follow: whether to wait for more, until its first process or its machine has ended. When the
            machine has ended by itself, the cause is logged as a warning.
        tail: maximum number of existing lines.
        since_ns: leaves out older lines; in nanoseconds since the epoch.

    Raises:
        NotFound: it has no log.
    """
    async with sessions.open(exclusive=False) as session:
        await session.store.container_spec(container_id)
        path = disks.log(session.pod.id, container_id)
        pod, hooks, is_alive = session.pod, session.hooks, session.is_alive
    if not path.exists():
        raise NotFound(f"container {container_id} has no log; 'vc run -d' makes one")
    gone = hooks.vm_wait(pod=pod) if follow and is_alive else None
    async with aclosing(_all_of(path, container_id, tail, gone)) as lines:
        async for line in lines:
            if line.time_ns >= since_ns:
                yield line
    if gone is not None:
        with contextlib.suppress(NotFound):  # the pod was deleted meanwhile
            async with sessions.open(exclusive=False) as session:
                if session.state.reason.startswith(ENDED):
                    log.warning("pod %s: %s", session.pod.id, session.state.reason)


async def _all_of(
    path: Path, container_id: str, tail: int | None, gone: Awaitable[object] | None
) -> AsyncGenerator[LogLine, None]:
    """Yields the lines of a log; also new ones, if there is an event that ends them."""
    async with AsyncExitStack() as stack:
        changes = stack.enter_context(_Changes(path, gone)) if gone is not None else None
        lines = Lines(0 if tail is None else max(0, await _count(path, changes is not None) - tail))
        reader = stack.enter_context(Reader(path))
        room = _ALL if tail is None or changes is not None else tail
        async for line in _read_on(reader, lines):
            if room == 0:  # it was written after the lines were counted
                break
            room -= 1
            yield line
        while changes is not None and not (lines.is_over or changes.are_over):
            lines.skip = 0
            if not reader.has_more:
                await changes.next()
            async for line in _read_on(reader, lines):
                yield line
            if reader.has_lost:
                log.warning(
                    "container %s writes faster than its log is read: some of it was overwritten",
                    container_id,
                )
                reader.has_lost = False
        for line in lines.rest()[:room]:
            yield line
        if reader.is_damaged:
            log.warning(
                "the log of container %s is damaged; invalid records were skipped",
                container_id,
            )


class _Changes:
    """Reports changes of a log, until its machine has ended."""

    def __init__(self, path: Path, gone: Awaitable[object]) -> None:
        from asyncinotify import Inotify, Mask

        self._path = path
        self._changes = Inotify()
        self._changes.add_watch(path, Mask.MODIFY | Mask.DELETE_SELF)
        self._gone = asyncio.ensure_future(gone)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._gone.cancel()
        self._changes.close()

    @property
    def are_over(self) -> bool:
        """Whether nothing more is written."""
        return self._gone.done() or not self._path.exists()

    async def next(self) -> None:
        """Returns when something was written, or the machine has ended."""
        changed = asyncio.ensure_future(self._changes.get())
        try:
            await asyncio.wait({changed, self._gone}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            changed.cancel()


async def _count(path: Path, is_going_on: bool) -> int:
    """Returns the number of lines in a log.

    Incomplete lines are counted if the log is not followed.
    """
    lines = Lines(_ALL)
    with Reader(path) as reader:
        async for _ in _read_on(reader, lines):
            pass
    if lines.is_over or not is_going_on:
        lines.rest()
    return _ALL - lines.skip


async def _read_on(reader: Reader, lines: Lines) -> AsyncGenerator[LogLine, None]:
    for number, record in enumerate(reader.read()):
        for line in lines.feed(record):
            yield line
        if number % _BATCH == 0:
            await asyncio.sleep(0)  # Ctrl-C cancels a task, too
