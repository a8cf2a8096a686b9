"""Writes events of pods and containers to a journal, one line of JSON for each event.

The journal is <data.dir>/.events.jsonl; when it is long, it is renamed to .events.1.jsonl.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO

import msgspec

from vc_core.driver_kit.file_lock import is_named
from vc_core.driver_kit.ownership import private_folder
from vc_core.spec.markers import hookimpl
from vc_core.spec.values import ExitStatus, NetworkDenial, PodRef

_LIMIT_BYTES = 1 << 20
log = logging.getLogger(__name__)


class Event(msgspec.Struct, frozen=True):
    """An event in the journal.

    Attributes:
        time_ns: time at which it was sent, in nanoseconds since the epoch.
        event: its name in the contract (vc_core.spec.events).
        pod: id of the pod.
        container: id of the container; empty when the event is about the pod.
        reason: why a pod stopped; what its network refused, e.g. "address tcp 192.0.2.1:443";
            "out of memory" for a container that was killed at its limit.
        exit_code: exit code of a container that ended.
    """

    time_ns: int
    event: str
    pod: str
    container: str = ""
    reason: str = ""
    exit_code: int | None = None


class Journal:
    """Writes and reads events."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file = folder / ".events.jsonl"
        self._older = folder / ".events.1.jsonl"

    # --- events -----------------------------------------------------------------------------------

    @hookimpl
    async def pod_created(self, pod: PodRef) -> None:
        self._write("pod_created", pod)

    @hookimpl
    async def pod_started(self, pod: PodRef) -> None:
        self._write("pod_started", pod)

    @hookimpl
    async def pod_paused(self, pod: PodRef) -> None:
        self._write("pod_paused", pod)

    @hookimpl
    async def pod_resumed(self, pod: PodRef) -> None:
        self._write("pod_resumed", pod)

    @hookimpl
    async def pod_stopped(self, pod: PodRef, reason: str) -> None:
        self._write("pod_stopped", pod, reason=reason)

    @hookimpl
    async def pod_deleted(self, pod: PodRef) -> None:
        self._write("pod_deleted", pod)

    @hookimpl
    async def pod_denied(self, pod: PodRef, denial: NetworkDenial) -> None:
        port = f":{denial.port}" if denial.port else ""
        target = f"[{denial.target}]" if port and ":" in denial.target else denial.target
        words = (denial.reason.value, denial.protocol, target + port)
        self._write("pod_denied", pod, reason=" ".join(filter(None, words)))

    @hookimpl
    async def container_created(self, pod: PodRef, container_id: str) -> None:
        self._write("container_created", pod, container_id)

    @hookimpl
    async def container_started(self, pod: PodRef, container_id: str) -> None:
        self._write("container_started", pod, container_id)

    @hookimpl
    async def container_stopped(self, pod: PodRef, container_id: str, status: ExitStatus) -> None:
        reason = "out of memory" if status.out_of_memory else ""
        self._write("container_stopped", pod, container_id, reason, status.code)

    @hookimpl
    async def container_deleted(self, pod: PodRef, container_id: str) -> None:
        self._write("container_deleted", pod, container_id)

    # --- the file ---------------------------------------------------------------------------------

    def _write(
        self,
        name: str,
        pod: PodRef,
        container: str = "",
        reason: str = "",
        exit_code: int | None = None,
    ) -> None:
        line = (
            msgspec.json.encode(Event(time.time_ns(), name, pod.id, container, reason, exit_code))
            + b"\n"
        )
        private_folder(self._folder, "data.dir")
        while True:
            handle = os.open(
                self._file, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600
            )
            try:
                fcntl.flock(handle, fcntl.LOCK_EX)
                if not is_named(handle, self._file):
                    continue  # renamed to the older journal meanwhile
                size = os.fstat(handle).st_size
                if os.write(handle, line) < len(line):  # the disk is full
                    os.ftruncate(handle, size)
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._file))
                if os.fstat(handle).st_size >= _LIMIT_BYTES:
                    self._file.replace(self._older)
                return
            finally:
                os.close(handle)

    async def events(self, follow: bool = False) -> AsyncGenerator[Event, None]:
        """Yields the recorded events, oldest first, and with `follow` new ones."""
        private_folder(self._folder, "data.dir")
        self._file.touch(mode=0o600)
        with ExitStack() as stack:
            if follow:
                from asyncinotify import Inotify, Mask

                changes = stack.enter_context(Inotify())
                changes.add_watch(self._folder, Mask.MODIFY | Mask.CREATE | Mask.MOVED_TO)
            stream = stack.enter_context(
                self._file.open("rb")
            )  # opened before the older one is read, because it may be renamed to that
            if self._older.exists():
                with self._older.open("rb") as older:
                    for event in _events(older):
                        yield event
            while True:
                for event in _events(stream):
                    yield event
                if not is_named(stream.fileno(), self._file) and self._file.exists():
                    stream = stack.enter_context(self._file.open("rb"))
                elif not follow:
                    return
                else:
                    await changes.get()


def _events(stream: BinaryIO) -> Iterator[Event]:
    """Yields the complete lines; an incomplete one is read again later."""
    while line := stream.readline():
        if not line.endswith(b"\n"):
            stream.seek(-len(line), os.SEEK_CUR)
            return
        try:
            yield msgspec.json.decode(line, type=Event)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            log.warning("an event is left out, because its line is damaged: %s", error)
