"""The API of a process in a container."""

from __future__ import annotations

import asyncio
import contextlib
import enum
import fcntl
import io
import os
import signal as signals
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator

from msgspec import Struct, structs

from vc_core.driver_kit.timeouts import timeout_after
from vc_core.engine.api.arguments import checked_arguments
from vc_core.engine.session import pod_network
from vc_core.engine.session.session import Session
from vc_core.engine.session.sessions import Sessions
from vc_core.engine.state.ids import fresh
from vc_core.spec.errors import AgentError, OperationError, StateError, UnsupportedOperation
from vc_core.spec.values import (
    Capability,
    Channel,
    ExitStatus,
    ProcessStreams,
    StandIn,
    StreamName,
)

MAX_OUTPUT_BYTES = 64 << 20
"""Default limit of the collected output of a process, in bytes; the output is kept in memory."""
_NO_ROLE = StandIn()
_ABOVE_ITS_OWN = 10  # descriptors of a stand-in, which are 0 to 3
_CHUNK_COST = 64  # bytes of memory per chunk besides its data


class End(enum.StrEnum):
    """Why a process ended."""

    EXITED = "exited"
    SIGNALLED = "signalled"
    TIMED_OUT = "timed out"  # killed at the time limit
    TOO_MUCH_OUTPUT = "too much output"  # killed because it wrote more than the output limit
    OUT_OF_MEMORY = "out of memory"  # killed by the kernel at its memory limit


class Result(Struct, frozen=True):
    """How a process ended and what it wrote.

    Attributes:
        exit_code: 128 + signal when a signal ended it.
        signal: number of the signal, 0 when it exited by itself.
        stdout: the whole output, or the part within the output limit.
        stderr: likewise.
        duration_s: seconds from the start to the end.
        end: why it ended.
    """

    exit_code: int
    signal: int
    stdout: bytes
    stderr: bytes
    duration_s: float
    end: End = End.EXITED


class _Collected:
    """Collected output, up to a limit of bytes."""

    def __init__(self, room: int) -> None:
        self._room = room
        self._streams = {name: io.BytesIO() for name in StreamName}

    def add(self, name: StreamName, data: bytes) -> bool:
        """Keeps as much as the limit allows; returns whether that was all."""
        self._streams[name].write(data[: self._room])
        is_all = len(data) <= self._room
        self._room -= min(len(data), self._room)
        return is_all

    def of(self, name: StreamName) -> bytes:
        """Returns the collected output of a stream."""
        return self._streams[name].getvalue()


class Process:
    """One process, identified by its token. The object holds no lock: it may exist for days."""

    def __init__(self, sessions: Sessions, pod_id: str, container_id: str, token: str) -> None:
        self._sessions = sessions
        self._streams: ProcessStreams | None = None
        self._began = time.monotonic()
        self._kept: dict[StreamName, deque[bytes]] = {name: deque() for name in StreamName}
        self._kept_bytes = 0
        self._reading = asyncio.Lock()
        self._chunks: AsyncIterator[tuple[StreamName, bytes]] | None = None
        self.pod_id = pod_id
        self.container_id = container_id
        self.token = token

    async def streams(self) -> ProcessStreams:
        """Attaches to the standard streams; returns the same object each time.

        Raises:
            AgentError: another client is attached, or the process was started without streams.
        """
        if self._streams is None:
            async with self._sessions.open(exclusive=False) as session:
                await session.connection.open()
                self._streams = await session.hooks.agent_attach(
                    pod=session.pod, container_id=self.container_id, token=self.token
                )
        return self._streams

    async def stand_in(
        self,
        role: StandIn = _NO_ROLE,
        takes_loopback: bool = False,
        starter: int | None = None,
    ) -> tuple[str, ...]:
        """Returns the command line of a program that stands in for the process on this host.

        This process must execute it in its own place, as the channel that it uses belongs to this
        process. See `AgentSpec.agent_stand_in` for its descriptors.

        Args:
            role: what else it does.
            takes_loopback: whether it gets the connections that programs of the host make to the
                own addresses of the pod's network namespace, if the pod's network redirects them.
                The listening socket is inherited by what this process executes.
            starter: a listening Unix socket for `StandIn.starter`, which the caller closes. It has
                no effect when the agent's program does not start containers.

        Raises:
            UnsupportedOperation: the agent has no such program.
        """
        async with self._sessions.open(exclusive=False) as session:
            if Capability.STAND_IN not in session.capabilities:
                raise UnsupportedOperation("agent_stand_in")
            listener = await pod_network.take_loopback(session) if takes_loopback else None
            inherited = None
            begins = None
            try:
                if starter is not None and Capability.STARTER in session.capabilities:
                    begins = fcntl.fcntl(starter, fcntl.F_DUPFD, _ABOVE_ITS_OWN)
                    role = structs.replace(role, starter=begins)
                if listener is not None:
                    inherited = fcntl.fcntl(listener, fcntl.F_DUPFD, _ABOVE_ITS_OWN)
                    dial_channel = await _open_channel(session)
                    role = structs.replace(role, listener=inherited, dial_channel=dial_channel)
                return await session.hooks.agent_stand_in(
                    pod=session.pod,
                    channel=await _open_channel(session),
                    container_id=self.container_id,
                    token=self.token,
                    role=role,
                )
            except BaseException:
                for descriptor in (inherited, begins):
                    if descriptor is not None:
                        os.close(descriptor)
                raise
            finally:
                if listener is not None:
                    os.close(listener)

    async def output(self) -> AsyncGenerator[tuple[StreamName, bytes], None]:
        """Yields the output as it arrives, until the process has ended.

        Raises:
            AgentError: the machine ended before.
        """
        streams = await self.streams()
        try:
            async for chunk in streams.chunks():
                yield chunk
        except OperationError as error:
            await self._sessions.explain(error)

    @property
    def stdout(self) -> AsyncIterator[bytes]:
        """Yields the standard output as it arrives. Error output is kept until it is read.

        Raises:
            AgentError: more than MAX_OUTPUT_BYTES of unread error output arrived.
        """
        return self._one(StreamName.STDOUT)

    @property
    def stderr(self) -> AsyncIterator[bytes]:
        """Yields the error output as it arrives, likewise."""
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
                    self._keep(name, data)
            while kept:
                data = kept.popleft()
                self._kept_bytes -= len(data) + _CHUNK_COST
                yield data

    def _keep(self, name: StreamName, data: bytes) -> None:
        self._kept[name].append(data)
        self._kept_bytes += len(data) + _CHUNK_COST
        if self._kept_bytes > MAX_OUTPUT_BYTES:
            size = f"{MAX_OUTPUT_BYTES >> 20} MiB"
            raise AgentError(
                f"more than {size} is waiting on {name}, which is not read; "
                "use output() to read both"
            )

    @checked_arguments
    async def write(self, data: bytes) -> None:
        """Sends input."""
        streams = await self.streams()
        async with self._sessions.explaining():
            await streams.write(data)

    async def close_stdin(self) -> None:
        """Ends the input."""
        streams = await self.streams()
        async with self._sessions.explaining():
            await streams.close_stdin()

    async def wait(self) -> ExitStatus:
        """Returns when the process has ended.

        Raises:
            AgentError: the machine ended before.
        """
        async with self._sessions.open(exclusive=False) as session:
            await session.connection.open()
            hooks, pod = session.hooks, session.pod
        async with self._sessions.explaining():
            return await hooks.agent_wait(pod=pod, container_id=self.container_id, token=self.token)

    async def communicate(
        self,
        stdin: bytes | str = b"",
        timeout_s: float | None = None,
        max_output_bytes: int = MAX_OUTPUT_BYTES,
    ) -> Result:
        """Sends all input, collects all output, and waits for the end.

        Args:
            stdin: the input; text is encoded as UTF-8.
            timeout_s: seconds after which the process is killed; the result has the output
                until then.
            max_output_bytes: limit of both streams together. A process that writes more is killed;
                see `Result.end`.

        Raises:
            AgentError: the machine ended before, or the guest does not report the end of a
                killed process.
        """
        collected = _Collected(max_output_bytes)
        await self.streams()
        cause = End.SIGNALLED

        async def end(why: End) -> None:
            nonlocal cause
            cause = why
            with contextlib.suppress(StateError):  # it ended at the same moment
                await self.kill(signals.SIGKILL)

        async def end_in_time() -> None:
            if timeout_s is not None:
                await asyncio.sleep(timeout_s)
                await end(End.TIMED_OUT)

        try:
            async with (
                timeout_after(None if timeout_s is None else timeout_s + self.end_limit_s) as limit,
                asyncio.TaskGroup() as group,
            ):
                feeding = group.create_task(
                    self._feed(stdin.encode() if isinstance(stdin, str) else stdin)
                )
                ending = group.create_task(end_in_time())
                async with contextlib.aclosing(self.output()) as output:
                    async for name, data in output:
                        if not collected.add(name, data):
                            limit.reschedule(asyncio.get_running_loop().time() + self.end_limit_s)
                            feeding.cancel()
                            await self.close()
                            await end(End.TOO_MUCH_OUTPUT)
                            break
                status = await self.wait()
                ending.cancel()
        except ExceptionGroup as failed:  # the first one has ended the others
            raise failed.exceptions[0] from None
        except TimeoutError as error:
            if not limit.expired():
                raise
            raise self.does_not_end(time.monotonic() - self._began) from error
        finally:
            await self.close()
        duration = time.monotonic() - self._began
        stdout, stderr = collected.of(StreamName.STDOUT), collected.of(StreamName.STDERR)
        if not status.signal or cause is End.SIGNALLED:
            cause = (
                End.OUT_OF_MEMORY
                if status.out_of_memory
                else End.SIGNALLED
                if status.signal
                else End.EXITED
            )
        return Result(status.code, status.signal, stdout, stderr, duration, cause)

    async def _feed(self, data: bytes) -> None:
        if data:
            await self.write(data)
        await self.close_stdin()

    @property
    def end_limit_s(self) -> float:
        """Seconds that the guest has to report the end of a killed process."""
        return self._sessions.deadlines.of("agent_wait")

    def does_not_end(self, after_s: float) -> AgentError:
        """Returns the error for a guest that does not report the end of the process.

        Args:
            after_s: seconds after which the process was killed.
        """
        return AgentError(
            f"the process was killed after {after_s:g} s, "
            "and the guest has not told of its end for "
            f"{self.end_limit_s:g} s; 'vc pod delete --force {self.pod_id}' ends the machine",
            pod=self.pod_id,
        )

    @checked_arguments
    async def kill(self, signal: int) -> None:
        """Sends a signal to the process.

        Raises:
            StateError: it has ended.
        """
        async with self._sessions.open(exclusive=False) as session:
            await session.connection.open()
            await session.hooks.agent_signal(
                pod=session.pod, container_id=self.container_id, token=self.token, signal=signal
            )

    @checked_arguments
    async def resize(self, rows: int, columns: int) -> None:
        """Sets the size of the terminal, in characters."""
        async with self._sessions.open(exclusive=False) as session:
            await session.connection.open()
            await session.hooks.agent_resize(
                pod=session.pod,
                container_id=self.container_id,
                token=self.token,
                rows=rows,
                columns=columns,
            )

    async def close(self) -> None:
        """Detaches from the streams; the process keeps running. May be called twice."""
        if self._streams is not None:
            await self._streams.close()
            self._streams = None


async def _open_channel(session: Session) -> Channel:
    return await session.hooks.vm_open_channel(pod=session.pod, name=f"vc.agent.{fresh()}")
