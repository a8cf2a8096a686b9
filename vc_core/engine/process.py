"""A process in a container, as the user holds it."""

from __future__ import annotations

import asyncio
import contextlib
import enum
import signal as signals
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vc_core.spec.errors import NotFound, OperationError, StateError
from vc_core.spec.values import ExitStatus, ProcessStreams, StreamName

if TYPE_CHECKING:
    from vc_core.engine.session import Sessions


class End(enum.StrEnum):
    """Why a process ended."""

    EXITED = "exited"
    SIGNALLED = "signalled"
    TIMED_OUT = "timed out"  # it was killed when its time was over
    OUT_OF_MEMORY = "out of memory"  # the kernel killed it: it needed more than its limit


@dataclass(frozen=True)
class Result:
    """How a process ended and what it wrote.

    Attributes:
        exit_code: 128 + signal when a signal ended it.
        signal: the signal's number, 0 when it exited by itself.
        stdout: all of it.
        stderr: all of it.
        duration_s: from the start to the end.
        end: why it ended.
    """

    exit_code: int
    signal: int
    stdout: bytes
    stderr: bytes
    duration_s: float
    end: End = End.EXITED


class Process:
    """One process, known by its token. Holds no lock: it may live for days."""

    def __init__(self, sessions: Sessions, pod_id: str, container_id: str, token: str) -> None:
        self._sessions = sessions
        self._streams: ProcessStreams | None = None
        self._began = time.monotonic()
        self._kept: dict[StreamName, deque[bytes]] = {name: deque() for name in StreamName}
        self._reading = asyncio.Lock()
        self._chunks: AsyncIterator[tuple[StreamName, bytes]] | None = None
        self.pod_id = pod_id
        self.container_id = container_id
        self.token = token

    async def streams(self) -> ProcessStreams:
        """Attaches to its standard streams; the same ones each time.

        Raises:
            AgentError: another client is attached, or the process was started without streams.
        """
        if self._streams is None:
            async with self._sessions.open(exclusive=False) as session:
                await session.connect()
                self._streams = await session.hooks.agent_attach(
                    pod=session.pod, container_id=self.container_id, token=self.token
                )
        return self._streams

    async def output(self) -> AsyncGenerator[tuple[StreamName, bytes], None]:
        """Its output as it comes, until it has ended.

        Raises:
            AgentError: the machine ended before.
        """
        streams = await self.streams()
        async with self._telling_why():
            async for chunk in streams.chunks():
                yield chunk

    @property
    def stdout(self) -> AsyncIterator[bytes]:
        """What it writes there, as it comes. What comes on the other stream is kept until somebody reads that."""
        return self._one(StreamName.STDOUT)

    @property
    def stderr(self) -> AsyncIterator[bytes]:
        """The same for its errors."""
        return self._one(StreamName.STDERR)

    async def _one(self, wanted: StreamName) -> AsyncIterator[bytes]:
        kept = self._kept[wanted]
        while True:
            async with self._reading:
                if not kept:
                    if self._chunks is None:
                        self._chunks = self.output()
                    try:
                        name, data = await anext(self._chunks)
                    except StopAsyncIteration:
                        return
                    self._kept[name].append(data)
            while kept:
                yield kept.popleft()

    async def write(self, data: bytes) -> None:
        """Sends input."""
        await (await self.streams()).write(data)

    async def close_stdin(self) -> None:
        """Ends the input."""
        await (await self.streams()).close_stdin()

    async def wait(self) -> ExitStatus:
        """Returns when it has ended.

        Raises:
            AgentError: the machine ended before.
        """
        async with self._sessions.open(exclusive=False) as session:
            await session.connect()
            hooks, pod = session.hooks, session.pod
        async with self._telling_why():
            return await hooks.agent_wait(pod=pod, container_id=self.container_id, token=self.token)

    @contextlib.asynccontextmanager
    async def _telling_why(self) -> AsyncIterator[None]:
        """What fails in it because the machine has ended tells why that has ended."""
        try:
            yield
        except OperationError as error:
            with contextlib.suppress(NotFound):  # the pod was deleted meanwhile, and with it the reason
                async with self._sessions.open(exclusive=False) as session:
                    status = await session.hooks.vm_status(pod=session.pod)
                if status.reason:
                    error.message = f"the machine ended while the process ran: {status.reason}"
                    error.pod = self.pod_id
            raise

    async def communicate(self, stdin: bytes | str = b"", timeout_s: float | None = None) -> Result:
        """Sends all input, collects all output, waits.

        Args:
            stdin: its input; text goes as UTF-8.
            timeout_s: after which it is killed; what it has written until then is in the result.

        Raises:
            AgentError: the machine ended before.
        """
        collected: dict[StreamName, bytearray] = {StreamName.STDOUT: bytearray(), StreamName.STDERR: bytearray()}
        streams = await self.streams()
        is_over = False

        async def feed() -> None:
            if stdin:
                await streams.write(stdin.encode() if isinstance(stdin, str) else stdin)
            await streams.close_stdin()

        async def end_in_time() -> None:
            nonlocal is_over
            if timeout_s is not None:
                await asyncio.sleep(timeout_s)
                is_over = True
                with contextlib.suppress(StateError):  # it has ended at the same moment
                    await self.kill(signals.SIGKILL)

        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(feed())
                ending = group.create_task(end_in_time())
                async for name, data in self.output():
                    collected[name] += data
                status = await self.wait()
                ending.cancel()
        except ExceptionGroup as failed:  # the first one has ended the others
            raise failed.exceptions[0] from None
        await self.close()
        duration = time.monotonic() - self._began
        stdout, stderr = (bytes(collected[name]) for name in (StreamName.STDOUT, StreamName.STDERR))
        end = End.TIMED_OUT if is_over and status.signal else End.SIGNALLED if status.signal else End.EXITED
        return Result(status.code, status.signal, stdout, stderr, duration, end)

    async def kill(self, signal: int) -> None:
        """Sends it a signal.

        Raises:
            StateError: it has ended.
        """
        async with self._sessions.open(exclusive=False) as session:
            await session.connect()
            await session.hooks.agent_signal(
                pod=session.pod, container_id=self.container_id, token=self.token, signal=signal
            )

    async def resize(self, rows: int, columns: int) -> None:
        """Sets the size of its terminal."""
        async with self._sessions.open(exclusive=False) as session:
            await session.connect()
            await session.hooks.agent_resize(
                pod=session.pod, container_id=self.container_id, token=self.token, rows=rows, columns=columns
            )

    async def close(self) -> None:
        """Detaches from its streams; it goes on. May be called twice."""
        if self._streams is not None:
            await self._streams.close()
            self._streams = None
