"""The calls to the agent, over one connection.

This module imports grpc, so it is imported only when a connection is made.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, ParamSpec, TypeVar

import grpc
import grpc.aio

from vc_agent_grpc import checked_answers, convert
from vc_agent_grpc._generated import agent_pb2 as pb
from vc_agent_grpc._generated.agent_pb2_grpc import AgentStub
from vc_agent_grpc.streams import GrpcStreams, is_our_own_end
from vc_core.spec import (
    AgentError,
    AgentInfo,
    AgentRefusal,
    AlreadyExists,
    CannotExecute,
    ContainerStats,
    ExitStatus,
    FilesRequest,
    GuestContainer,
    GuestContainerStatus,
    InvalidRequest,
    NotFound,
    PodSetup,
    ProcessInfo,
    ProcessSpec,
    ProcessStreams,
    Resources,
    StateError,
    Stdio,
)

P = ParamSpec("P")
T = TypeVar("T")

_TIME = "vc-time-ns"

_READ_BYTES = 256 << 10

OLDEST_PROTOCOL = 5
NEWEST_PROTOCOL = 5
_OPTIONS = (
    # The agent's HTTP/2 library refuses the authority that grpc derives from a socket's path.
    ("grpc.default_authority", "localhost"),
    ("grpc.max_receive_message_length", checked_answers.MAX_MESSAGE_BYTES),
    # A channel serves one connection: a second one would find an unplugged port.
    ("grpc.enable_retries", 0),
    # grpc doubles the size of its reads for as long as there is more to read: without a bound, a
    # guest that floods the host takes memory in proportion to what it sends.
    ("grpc.experimental.tcp_max_read_buffer_size", _READ_BYTES),
    ("grpc.http2.max_frame_size", 16384),
    ("grpc.http2.bdp_probe", 0),
    ("grpc.http2.lookahead_bytes", 1 << 20),
)

# grpc logs an unreadable message and also raises an error for it.
logging.getLogger("grpc").setLevel(logging.CRITICAL)


def translated(call: Callable[P, Awaitable[T]]) -> Callable[P, Coroutine[Any, Any, T]]:
    """Converts the guest's status codes to the contract's errors."""

    @functools.wraps(call)
    async def translating(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return await call(*args, **kwargs)
        except grpc.aio.AioRpcError as error:
            raise _error(error) from error
        except grpc.aio.UsageError as error:  # grpc's error for a channel that was closed meanwhile
            raise AgentError("the connection to the guest's agent was closed") from error
        except asyncio.CancelledError as error:
            if is_our_own_end():
                raise
            raise AgentError("the connection to the guest's agent was closed") from error

    return translating


def _error(error: grpc.aio.AioRpcError) -> Exception:
    text = checked_answers.details(error)
    match checked_answers.reason(error):
        case pb.REASON_PROGRAM_MISSING:
            return CannotExecute(text, is_missing=True)
        case pb.REASON_PROGRAM_NOT_EXECUTABLE:
            return CannotExecute(text, is_missing=False)
        case pb.REASON_NO_CONTAINER | pb.REASON_NO_PROCESS:
            return NotFound(text)
        case pb.REASON_CONTAINER_EXISTS:
            return AlreadyExists(text)
        case pb.REASON_INVALID_REQUEST:
            return InvalidRequest(text)
    match error.code():  # grpc's own: of calls whose connection is gone, or was closed here
        case grpc.StatusCode.UNAVAILABLE:
            return AgentError(f"the guest's agent does not answer: {text}")
        case grpc.StatusCode.CANCELLED:
            return AgentError(text)
        case _:
            return AgentRefusal(text)


class _Time(grpc.aio.UnaryUnaryClientInterceptor):
    """Sends the current time with each call, because a paused guest's clock stands still."""

    async def intercept_unary_unary(
        self, continuation: Any, client_call_details: Any, request: Any
    ) -> Any:
        metadata = grpc.aio.Metadata(
            *(client_call_details.metadata or ()), (_TIME, str(time.time_ns()))
        )
        return await continuation(client_call_details._replace(metadata=metadata), request)


async def connect(address: str) -> Client:
    """Connects and negotiates the version of the protocol.

    Args:
        address: the address in grpc's format: "unix:/path".

    Raises:
        AgentError: the agent does not answer, or no version is common to both sides.
    """
    channel = grpc.aio.insecure_channel(address, options=_OPTIONS, interceptors=[_Time()])
    request = pb.NegotiateRequest(oldest=OLDEST_PROTOCOL, newest=NEWEST_PROTOCOL)
    try:
        reply = await AgentStub(channel).Negotiate(request)
        info = checked_answers.agreed(
            checked_answers.message(reply), OLDEST_PROTOCOL, NEWEST_PROTOCOL
        )
    except grpc.aio.AioRpcError as error:
        await channel.close()
        # By its status code: an agent of another protocol need not know these reasons.
        if error.code() is grpc.StatusCode.FAILED_PRECONDITION:
            raise AgentError(
                f"{checked_answers.details(error)}; run 'vc guest build' and start the pod anew"
            ) from error
        raise _error(error) from error
    except BaseException:
        await channel.close()
        raise
    return Client(channel, info)


class Client:
    """A connection with a negotiated protocol."""

    def __init__(self, channel: grpc.aio.Channel, info: AgentInfo) -> None:
        self._channel = channel
        self._agent = AgentStub(channel)
        self._quiesce_call: grpc.aio.UnaryStreamCall[pb.Empty, pb.Empty] | None = None
        self.info = info

    async def close(self) -> None:
        """Closes the connection; calls in progress are cancelled."""
        await self._channel.close()

    @translated
    async def set_up_pod(self, setup: PodSetup) -> None:
        """Gives the guest its identity."""
        await self._agent.SetUpPod(convert.set_up_request(setup))

    @translated
    async def quiesce(self) -> None:
        """Quiesces the guest, until `unquiesce`.

        The call stays open meanwhile: its end has the effect of `unquiesce`.
        """
        call = self._agent.Quiesce(pb.Empty())
        if not isinstance(await call.read(), pb.Empty):
            raise checked_answers.wrong("it is to ready itself for being saved, and says nothing")
        self._quiesce_call = call

    @translated
    async def unquiesce(self) -> None:
        """Makes the guest reopen its shares."""
        await self._agent.Unquiesce(pb.Empty())
        if self._quiesce_call is not None:
            self._quiesce_call.cancel()
            self._quiesce_call = None

    @translated
    async def online(self, vcpus: int, plugged_memory_mib: int) -> None:
        """Waits until the guest uses what was plugged."""
        wanted = pb.OnlineResourcesRequest(vcpus=vcpus, memory_bytes=plugged_memory_mib << 20)
        await self._agent.OnlineResources(wanted)

    @translated
    async def tear_down_pod(self) -> None:
        """Ends all containers of the guest, then the guest."""
        await self._agent.TearDownPod(pb.Empty())
        try:
            await self._agent.PowerOff(pb.Empty())
        except grpc.aio.AioRpcError as error:
            if (
                error.code() is not grpc.StatusCode.UNAVAILABLE
            ):  # the end of the connection is the answer
                raise

    @translated
    async def create_container(self, container: GuestContainer, compiled_filter: bytes) -> None:
        """Creates a container; for the filter see `oci_spec.spec_of`."""
        await self._agent.CreateContainer(convert.create_request(container, compiled_filter))

    @translated
    async def start_container(self, container_id: str) -> None:
        """Starts a container."""
        await self._agent.StartContainer(pb.ContainerRequest(container_id=container_id))

    @translated
    async def remove_container(self, container_id: str) -> None:
        """Kills and removes a container."""
        await self._agent.RemoveContainer(pb.ContainerRequest(container_id=container_id))

    @translated
    async def list_containers(self) -> tuple[GuestContainerStatus, ...]:
        """Returns all containers, and how their first processes ended."""
        reply = await self._agent.ListContainers(pb.Empty())
        return checked_answers.containers(checked_answers.message(reply))

    @translated
    async def update_container(self, container_id: str, resources: Resources) -> None:
        """Changes a container's limits."""
        changed = convert.resources_json(resources)
        await self._agent.UpdateContainer(
            pb.UpdateContainerRequest(container_id=container_id, oci_resources=changed)
        )

    @translated
    async def container_stats(self, container_id: str) -> ContainerStats:
        """Returns a container's use of resources."""
        reply = await self._agent.ContainerStats(pb.ContainerRequest(container_id=container_id))
        return checked_answers.stats(checked_answers.message(reply))

    @translated
    async def list_processes(self, container_id: str) -> tuple[ProcessInfo, ...]:
        """Returns a container's processes."""
        reply = await self._agent.ListProcesses(pb.ContainerRequest(container_id=container_id))
        return checked_answers.processes(checked_answers.message(reply))

    @translated
    async def execute(
        self, container_id: str, token: str, process: ProcessSpec, stdio: Stdio
    ) -> None:
        """Starts a further process in a container."""
        spec = convert.process_json(process)
        wanted = convert.STDIO[stdio]
        await self._agent.Exec(
            pb.ExecRequest(container_id=container_id, token=token, oci_process=spec, stdio=wanted)
        )

    @translated
    async def serve_files(self, container_id: str, token: str, request: FilesRequest) -> None:
        """Starts a process of the agent itself that accesses the files of a container."""
        await self._agent.Files(
            pb.FilesRequest(
                container_id=container_id,
                token=token,
                verb=request.verb,
                path=request.path,
                name=request.name,
            )
        )

    @translated
    async def attach(self, container_id: str, token: str) -> ProcessStreams:
        """Returns the streams of a process."""
        streams = GrpcStreams(
            self._agent, pb.ProcessRequest(container_id=container_id, token=token)
        )
        await streams.begin()
        return streams

    @translated
    async def wait(self, container_id: str, token: str) -> ExitStatus:
        """Returns how a process ended, when it has."""
        reply = await self._agent.Wait(pb.ProcessRequest(container_id=container_id, token=token))
        return checked_answers.exit_status(checked_answers.message(reply))

    @translated
    async def signal(self, container_id: str, token: str, number: int) -> None:
        """Signals one process, or all of a container."""
        try:
            await self._agent.Signal(
                pb.SignalRequest(container_id=container_id, token=token, signal=number)
            )
        except grpc.aio.AioRpcError as error:
            if checked_answers.reason(error) == pb.REASON_PROCESS_ENDED:
                subject = f"process {token} of container {container_id}"
                raise StateError(subject, "signal it", "ended", ["running"]) from error
            raise

    @translated
    async def resize(self, container_id: str, token: str, rows: int, columns: int) -> None:
        """Sets the size of a process's terminal."""
        await self._agent.Resize(
            pb.ResizeRequest(container_id=container_id, token=token, rows=rows, columns=columns)
        )
