"""A process's standard streams: one call for its output, another for its input."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import grpc
import grpc.aio

from vc_agent_grpc import checked_answers
from vc_agent_grpc._generated import agent_pb2 as pb
from vc_core.spec import AgentError, StreamName

if TYPE_CHECKING:
    from vc_agent_grpc._generated.agent_pb2_grpc import AgentAsyncStub

_CHUNK_BYTES = 64 << 10


def is_our_own_end() -> bool:
    """Returns whether the current task was cancelled.

    grpc also cancels calls when their connection is closed.
    """
    task = asyncio.current_task()
    return task is None or task.cancelling() > 0


class GrpcStreams:
    """Attached streams; the contract's ProcessStreams."""

    def __init__(self, agent: AgentAsyncStub, process: pb.ProcessRequest) -> None:
        self._agent = agent
        self._process = process
        self._output = agent.ReadOutput(process)
        self._input: grpc.aio.StreamUnaryCall[pb.InputChunk, pb.Empty] | None = None
        self._is_input_open = True
        self._writing = asyncio.Lock()

    async def begin(self) -> None:
        """Returns when the agent has accepted the call; raises its AioRpcError otherwise."""
        first = await self._output.read()
        if not isinstance(first, pb.OutputChunk) or first.WhichOneof("stream") is not None:
            raise checked_answers.wrong(
                "a process is attached to without the empty chunk that says so"
            )

    async def write(self, data: bytes) -> None:
        """Sends input in pieces; each waits until more can be sent."""
        async with self._writing:
            for start in range(0, len(data), _CHUNK_BYTES):
                await self._send(data[start : start + _CHUNK_BYTES], is_last=False)

    async def close_stdin(self) -> None:
        """Ends the input."""
        async with self._writing:
            await self._send(b"", is_last=True)

    async def chunks(self) -> AsyncIterator[tuple[StreamName, bytes]]:
        """Yields output as it arrives."""
        try:
            while isinstance(
                output := checked_answers.message(await self._output.read()), pb.OutputChunk
            ):
                if output.stdout:
                    yield StreamName.STDOUT, output.stdout
                elif output.stderr:
                    yield StreamName.STDERR, output.stderr
        except grpc.aio.AioRpcError as error:
            raise AgentError(
                f"the process's output broke off: {checked_answers.details(error)}"
            ) from error
        except asyncio.CancelledError as error:
            if is_our_own_end():
                raise
            raise AgentError("the connection to the guest's agent was closed") from error

    async def close(self) -> None:
        """Detaches."""
        self._output.cancel()
        if self._input is not None:
            self._input.cancel()

    async def _send(self, data: bytes, is_last: bool) -> None:
        """Sends a piece of input.

        Input for a process that has ended, or has closed its stdin, is dropped: the call has its
        answer then.
        """
        if not self._is_input_open:
            return
        process = self._process if self._input is None else None
        if self._input is None:
            try:
                self._input = self._agent.WriteInput()
            except (
                grpc.aio.UsageError
            ) as error:  # grpc's error for a channel that was closed meanwhile
                raise AgentError("the connection to the guest's agent was closed") from error
        try:
            await self._input.write(pb.InputChunk(process=process, data=data, is_last=is_last))
            if is_last:
                await self._input.done_writing()
                await self._input
        except (grpc.aio.AioRpcError, grpc.aio.UsageError, asyncio.InvalidStateError):
            is_last = True
        except asyncio.CancelledError as error:
            if is_our_own_end():
                raise
            raise AgentError("the connection to the guest's agent was closed") from error
        self._is_input_open = not is_last
