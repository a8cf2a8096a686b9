"""Checks the answers of the guest, because a compromised guest may send anything.

An invalid answer is an AgentRefusal; no part of it is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from vc_agent_grpc._generated import agent_pb2 as pb
from vc_core.spec import (
    AgentInfo,
    AgentRefusal,
    ContainerStats,
    ExitStatus,
    GuestContainerStatus,
    Health,
    ProcessInfo,
)

if TYPE_CHECKING:
    import grpc.aio

T = TypeVar("T")

MAX_MESSAGE_BYTES = 1 << 20
"""Maximum size of one answer in bytes; the largest answer is a list of processes.

In memory it takes up to a hundred times as much.
"""

_MAX_ROWS = 1 << 15
_MAX_WORDS = 1 << 16  # total of all command lines of a list
_MAX_NAME = 256
_MAX_DETAILS = 1000
_MAX_NUMBER = 1 << 63  # of bytes and nanoseconds: the range of JSON readers and TOML
_MAX_CODE = 255
_MAX_SIGNAL = 64
_BY_SIGNAL = 128

_REASONS = dict(pb.Reason.items())
_REASONS_BY_STATUS = {
    "NOT_FOUND": pb.REASON_NO_CONTAINER,
    "ALREADY_EXISTS": pb.REASON_CONTAINER_EXISTS,
    "INVALID_ARGUMENT": pb.REASON_INVALID_REQUEST,
    "FAILED_PRECONDITION": pb.REASON_PROCESS_ENDED,
}
_REASONS_BY_REFUSAL = {
    "missing": pb.REASON_PROGRAM_MISSING,
    "not-executable": pb.REASON_PROGRAM_NOT_EXECUTABLE,
}

_HEALTH = {
    pb.HEALTH_NONE: Health.NONE,
    pb.HEALTH_STARTING: Health.STARTING,
    pb.HEALTH_HEALTHY: Health.HEALTHY,
    pb.HEALTH_UNHEALTHY: Health.UNHEALTHY,
}


def message(reply: T | None) -> T:
    """Returns an answer, which is None where grpc failed to parse it and only logged that."""
    if reply is None:
        raise wrong("bytes that are no message of the protocol")
    return reply


def details(error: grpc.aio.AioRpcError) -> str:
    """Returns the text of an error from the guest or grpc.

    One line without control characters, of limited length.
    """
    text = error.details() or error.code().name
    cut = text if len(text) <= _MAX_DETAILS else f"{text[:_MAX_DETAILS]} […]"
    return "".join(
        one if one.isprintable() else one.encode("unicode_escape").decode() for one in cut
    )


def reason(error: grpc.aio.AioRpcError) -> pb.Reason.ValueType:
    """Returns why the guest refuses a call, as in agent.proto.

    REASON_UNSPECIFIED when it gives no reason that this version knows. Older agents, without
    reasons, send only the status.
    """
    name = _metadata(error, "vc-reason")
    if name is not None:
        return _REASONS.get(name, pb.REASON_UNSPECIFIED)
    by_status = _REASONS_BY_STATUS.get(error.code().name, pb.REASON_UNSPECIFIED)
    return _REASONS_BY_REFUSAL.get(_metadata(error, "vc-refusal") or "", by_status)


def _metadata(error: grpc.aio.AioRpcError, key: str) -> str | None:
    metadata = error.trailing_metadata()
    value = metadata.get(key) if metadata is not None else None
    return value if isinstance(value, str) else None


def wrong(what: str) -> AgentRefusal:
    """Returns the error for an invalid answer."""
    return AgentRefusal(
        f"the guest's agent gave an invalid answer: {what}; "
        "'vc pod delete --force' ends the machine"
    )


def agreed(reply: pb.NegotiateReply, oldest: int, newest: int) -> AgentInfo:
    """Returns the guest's agent, as it describes itself."""
    if not oldest <= reply.protocol <= newest:
        raise wrong(f"protocol {reply.protocol}, where {oldest} to {newest} were offered")
    if len(reply.features) > _MAX_NAME:
        raise wrong(f"{len(reply.features)} features")
    names = (reply.agent_version, reply.kernel, *reply.features)
    for name in names:
        _name(name)
    return AgentInfo(
        version=reply.agent_version,
        protocol=reply.protocol,
        features=tuple(reply.features),
        kernel=reply.kernel,
    )


def exit_status(reply: pb.WaitReply) -> ExitStatus:
    """Returns how a process ended."""
    code, signal = reply.exit_code, reply.signal
    if (
        not 0 <= code <= _MAX_CODE
        or signal > _MAX_SIGNAL
        or (signal and code != _BY_SIGNAL + signal)
    ):
        raise wrong(f"a process that ended with exit code {code} and signal {signal}")
    return ExitStatus(
        code=code, signal=signal, ended_ns=max(0, reply.ended_ns), out_of_memory=reply.out_of_memory
    )


def containers(reply: pb.ListContainersReply) -> tuple[GuestContainerStatus, ...]:
    """Returns all containers."""
    _count(len(reply.containers), "containers")
    return tuple(_container(row) for row in reply.containers)


def _container(row: pb.ContainerInfo) -> GuestContainerStatus:
    if row.health not in _HEALTH:
        raise wrong(f"a container whose health is number {row.health}")
    ended = exit_status(row.ended) if row.HasField("ended") else None
    return GuestContainerStatus(
        id=_name(row.container_id), exit=ended, restarts=row.restarts, health=_HEALTH[row.health]
    )


def stats(reply: pb.ContainerStatsReply) -> ContainerStats:
    """Returns a container's use of resources."""
    return ContainerStats(
        cpu_ns=_number(reply.cpu_ns),
        memory_bytes=_number(reply.memory_bytes),
        memory_limit_bytes=_number(reply.memory_limit_bytes),
        processes=_number(reply.processes),
        oom_kills=_number(reply.oom_kills),
        user_cpu_ns=_number(reply.user_cpu_ns),
        system_cpu_ns=_number(reply.system_cpu_ns),
    )


def processes(reply: pb.ListProcessesReply) -> tuple[ProcessInfo, ...]:
    """Returns a container's processes."""
    _count(len(reply.processes), "processes")
    words = 0
    for row in reply.processes:
        words += len(row.command)
        if words > _MAX_WORDS:
            raise wrong(f"more than {_MAX_WORDS} words of command lines")
    return tuple(_process(row) for row in reply.processes)


def _process(row: pb.ProcessInfo) -> ProcessInfo:
    resident, cpu_ns = _number(row.resident_bytes), _number(row.cpu_ns)
    return ProcessInfo(
        pid=row.pid,
        parent_pid=row.parent_pid,
        uid=row.uid,
        state=_name(row.state),
        resident_bytes=resident,
        cpu_ns=cpu_ns,
        command=tuple(row.command),
    )


def _count(count: int, what: str) -> None:
    if count > _MAX_ROWS:
        raise wrong(f"{count} {what}")


def _name(text: str) -> str:
    if len(text) > _MAX_NAME:
        raise wrong(f"a name of {len(text)} characters")
    return text


def _number(number: int) -> int:
    if number >= _MAX_NUMBER:
        raise wrong(f"the number {number}")
    return number
