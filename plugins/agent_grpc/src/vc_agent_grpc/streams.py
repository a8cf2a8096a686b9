"""A process's standard streams as one bidirectional call."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import grpc
import grpc.aio

from vc_agent_grpc._generated import agent_pb2 as pb
from vc_core.spec import AgentError, StreamName

if TYPE_CHECKING:
    from vc_agent_grpc._generated.agent_pb2_grpc import AgentAsyncStub

_CHUNK_BYTES = 64 << 10


class GrpcStreams:
    """Attached streams; the contract's ProcessStreams."""

    def __init__(self, agent: AgentAsyncStub, process: pb.ProcessRequest) -> None:
        self._call: grpc.aio.StreamStreamCall[pb.AttachInput, pb.AttachOutput] = agent.Attach()
        self._process = process
        self._is_stdin_open = True
        self._writing = asyncio.Lock()

    async def begin(self) -> None:
        """Names the process; returns when the agent has accepted, raises its AioRpcError when not."""
        await self._call.write(pb.AttachInput(process=self._process))
        await self._call.initial_metadata()
        if self._call.done() and await self._call.code() is not grpc.StatusCode.OK:
            await self._call.read()  # raises what the agent said

    async def write(self, data: bytes) -> None:
        """Sends input in pieces; each waits until the way is free."""
        async with self._writing:
            for start in range(0, len(data), _CHUNK_BYTES):
                if not await self._send(pb.AttachInput(stdin=data[start : start + _CHUNK_BYTES])):
                    return

    async def close_stdin(self) -> None:
        """Ends the input."""
        async with self._writing:
            if await self._send(pb.AttachInput(close_stdin=True)):
                self._is_stdin_open = False
                await self._call.done_writing()

    async def chunks(self) -> AsyncIterator[tuple[StreamName, bytes]]:
        """Output as it comes."""
        try:
            while isinstance(output := await self._call.read(), pb.AttachOutput):
                if output.HasField("stdout"):
                    yield StreamName.STDOUT, output.stdout
                else:
                    yield StreamName.STDERR, output.stderr
        except grpc.aio.AioRpcError as error:
            raise AgentError(f"the process's output broke off: {error.details()}") from error

    async def close(self) -> None:
        """Detaches."""
        self._call.cancel()

    async def _send(self, message: pb.AttachInput) -> bool:
        """False when the process has ended, or the call with it: its input is worth nothing any more."""
        if not self._is_stdin_open or self._call.done():
            return False
        try:
            await self._call.write(message)
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError, grpc.aio.UsageError):
            return False
        return True
