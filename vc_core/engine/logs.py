"""What a container has written, from its log: also when it, its machine and whoever started it are gone."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Iterable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass

from vc_core.engine import devices
from vc_core.engine.log_format import Kind, Reader, Record
from vc_core.engine.session import Session, Sessions
from vc_core.spec.errors import NotFound
from vc_core.spec.values import Capability, ContainerSpec, HostDevice, Plugged, Stdio, StreamName

log = logging.getLogger(__name__)

_NEEDED = {Capability.LOG, Capability.DRIVE_PLUG}
_STREAMS = {Kind.STDOUT: StreamName.STDOUT, Kind.STDERR: StreamName.STDERR}


@dataclass(frozen=True)
class LogLine:
    """One line of a container's output.

    Attributes:
        time_ns: when its first bytes were written, since the epoch, by the guest's clock.
        stream: on which it was written.
        data: with the newline, which the last one of a process may lack.
    """

    time_ns: int
    stream: StreamName
    data: bytes


async def plug(session: Session, spec: ContainerSpec) -> Plugged | None:
    """Makes sure that a container that wants a log has one, as a disk in the machine; undone by `devices.release`.

    None, and a word of it, where no disk can be plugged: the container runs without.
    """
    if spec.stdio is not Stdio.LOG:
        return None
    if not session.capabilities >= _NEEDED:
        log.warning("the output of container %s is thrown away: the chosen plugins cannot plug a disk for it", spec.id)
        return None
    device = HostDevice(session.shared.data.make_log(session.pod.id, spec.id), "")
    return (await devices.acquire(session, device, spec.id)).plugged[0]


class Lines:
    """Lines out of pieces, for each stream of its own."""

    def __init__(self) -> None:
        self._begun: dict[StreamName, LogLine] = {}
        self.is_over = False  # whether the process has ended, as far as the pieces tell

    def all_of(self, records: Iterable[Record]) -> list[LogLine]:
        """The lines that are complete with these pieces."""
        return [line for record in records for line in self.feed(record)]

    def feed(self, record: Record) -> Iterator[LogLine]:
        """The lines that are complete with this piece."""
        self.is_over = record.kind is Kind.LAST
        if record.kind not in _STREAMS:
            yield from self.rest()
            return
        stream = _STREAMS[record.kind]
        for piece in _lines(record.data):
            begun = self._begun.pop(stream, None)
            line = LogLine(begun.time_ns if begun else record.time_ns, stream, (begun.data if begun else b"") + piece)
            if piece.endswith(b"\n"):
                yield line
            else:
                self._begun[stream] = line

    def rest(self) -> list[LogLine]:
        """Those that have begun and not ended."""
        left = sorted(self._begun.values(), key=lambda line: line.time_ns)
        self._begun.clear()
        return left


def _lines(data: bytes) -> list[bytes]:
    """Only newlines end lines: what a terminal's program draws on one has carriage returns."""
    *whole, last = data.split(b"\n")
    return [*(line + b"\n" for line in whole), *([last] if last else [])]


async def read(
    sessions: Sessions, container_id: str, follow: bool = False, tail: int | None = None, since_ns: int = 0
) -> AsyncGenerator[LogLine, None]:
    """The lines of a container's log, oldest first.

    Args:
        sessions: of its pod.
        container_id: its name.
        follow: whether to wait for more, until its first process or its machine has ended.
        tail: no more than so many of those that are there.
        since_ns: none that is older.

    Raises:
        NotFound: it has no log.
    """
    async with sessions.open(exclusive=False) as session:
        await session.store.container_spec(container_id)
        path = session.shared.data.log(session.pod.id, container_id)
        pod, hooks, is_alive = session.pod, session.hooks, session.is_alive
    if not path.exists():
        raise NotFound(f"container {container_id} has no log; 'vc run -d' makes one")
    async with AsyncExitStack() as stack:
        watch = follow and is_alive
        if watch:
            from asyncinotify import Inotify, Mask

            changes = stack.enter_context(Inotify())
            changes.add_watch(path, Mask.MODIFY | Mask.DELETE_SELF)
            gone = asyncio.ensure_future(hooks.vm_wait(pod=pod))
            stack.callback(gone.cancel)
        reader = stack.enter_context(Reader(path))
        lines = Lines()
        found = lines.all_of(reader.read())
        watch = watch and not lines.is_over
        found += [] if watch else lines.rest()
        for line in found if tail is None else found[max(0, len(found) - tail) :]:
            if line.time_ns >= since_ns:
                yield line
        while watch:
            changed = asyncio.ensure_future(changes.get())
            stack.callback(changed.cancel)
            await asyncio.wait({changed, gone}, return_when=asyncio.FIRST_COMPLETED)
            for line in lines.all_of(reader.read()):
                yield line
            if reader.has_lost:
                log.warning("container %s writes faster than its log is read: some of it was overwritten", container_id)
                reader.has_lost = False
            watch = not (lines.is_over or gone.done() or not path.exists())
        for line in lines.rest():
            yield line
