"""What crosses the border about pods' insides: containers and processes."""

from __future__ import annotations

import enum
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from vc_core.spec.machine_values import Plugged


class RootfsMode(enum.StrEnum):
    """What a container may do to its root file system."""

    OVERLAY = "overlay"  # writes go to memory and vanish; the folder never changes
    READ_ONLY = "ro"
    READ_WRITE = "rw"  # writes change the folder on the host


@dataclass(frozen=True)
class Rootfs:
    """A container's root file system.

    Attributes:
        path: a folder on the host; "/" is the host's own.
        mode: what the container may do to it.
    """

    path: Path
    mode: RootfsMode = RootfsMode.OVERLAY


@dataclass(frozen=True)
class Mount:
    """A folder or file of the host, in the container.

    Attributes:
        source: on the host, absolute.
        destination: in the container, absolute.
        read_only: whether writing is refused.
    """

    source: Path
    destination: str
    read_only: bool = False


@dataclass(frozen=True)
class ProcessSpec:
    """A process to start in a container.

    Attributes:
        args: the whole argv.
        env: "NAME=value" words; the value may hold "=".
        cwd: absolute, in the container.
        user: "uid", "uid:gid", or names known inside the container's /etc/passwd and /etc/group.
        terminal: whether it gets one.
        no_new_privileges: whether set-uid programs lose their power.
        rows: the terminal's height.
        columns: the terminal's width.
    """

    args: tuple[str, ...]
    env: tuple[str, ...] = ()
    cwd: str = "/"
    user: str = "0:0"
    terminal: bool = False
    no_new_privileges: bool = True
    rows: int = 24
    columns: int = 80


class Stdio(enum.StrEnum):
    """What a process's standard streams are connected to."""

    NULL = "null"  # no input; output is thrown away
    PIPES = "pipes"  # held for agent_attach; a full pipe makes the process wait


@dataclass(frozen=True)
class ContainerSpec:
    """A container to make.

    Attributes:
        id: unique in the pod.
        rootfs: its root file system.
        process: its first process.
        mounts: in the order in which they are made.
        stdio: what its first process's streams are connected to.
        hostname: what the process sees; empty for the pod's.
        annotations: kept and given back, nothing more.
    """

    id: str
    rootfs: Rootfs
    process: ProcessSpec
    mounts: tuple[Mount, ...] = ()
    stdio: Stdio = Stdio.NULL
    hostname: str = ""
    annotations: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class GuestMount:
    """A mount as the agent has to make it: a plugged share, or a path below one.

    Attributes:
        plugged: the share that holds it.
        subpath: below the share's root; empty for the root itself.
        destination: in the container.
        read_only: whether writing is refused.
        is_file: whether it is a single file.
    """

    plugged: Plugged
    subpath: str
    destination: str
    read_only: bool
    is_file: bool


@dataclass(frozen=True)
class GuestContainer:
    """A container as the agent has to make it.

    Attributes:
        spec: what was asked for.
        token: of its first process.
        rootfs: the plugged share or drive with its root file system.
        mounts: in order.
    """

    spec: ContainerSpec
    token: str
    rootfs: Plugged
    mounts: tuple[GuestMount, ...]


class StreamName(enum.StrEnum):
    """Which of a process's output streams."""

    STDOUT = "stdout"
    STDERR = "stderr"


@dataclass(frozen=True)
class ExitStatus:
    """How a process ended.

    Attributes:
        code: its exit code; 128 + signal when a signal ended it.
        signal: the signal's number, 0 when it exited by itself.
    """

    code: int
    signal: int = 0


@dataclass(frozen=True)
class ContainerTruth:
    """What the guest knows about one container.

    Attributes:
        id: the container's.
        exit: how its first process ended; None while it lives.
    """

    id: str
    exit: ExitStatus | None


@dataclass(frozen=True)
class ProcessInfo:
    """One row of a container's process list.

    Attributes:
        pid: inside the container.
        parent_pid: inside the container, 0 when outside.
        uid: effective user.
        state: one letter, as proc(5) has it.
        resident_bytes: memory in use.
        cpu_ns: processor time used.
        command: argv.
    """

    pid: int
    parent_pid: int
    uid: int
    state: str
    resident_bytes: int
    cpu_ns: int
    command: tuple[str, ...]


@dataclass(frozen=True)
class ContainerStats:
    """Use of the guest by one container.

    Attributes:
        cpu_ns: processor time since its start.
        memory_bytes: in use.
        memory_limit_bytes: 0 when there is none.
        processes: their number.
    """

    cpu_ns: int
    memory_bytes: int
    memory_limit_bytes: int
    processes: int


@dataclass(frozen=True)
class PodSetup:
    """What makes a freshly booted guest this pod.

    Attributes:
        hostname: at most 64 bytes.
        time_ns: since the epoch.
        seed: for the guest's random numbers.
    """

    hostname: str
    time_ns: int
    seed: bytes = field(repr=False)


@dataclass(frozen=True)
class AgentInfo:
    """Who answers in the guest.

    Attributes:
        version: of the agent.
        protocol: agreed on.
        features: names of what this agent can do beyond its protocol.
        kernel: its release.
    """

    version: str
    protocol: int
    features: tuple[str, ...]
    kernel: str


class ProcessStreams(Protocol):
    """The standard streams of a process in the guest. One client at a time."""

    async def write(self, data: bytes) -> None:
        """Sends input; returns when the way is free for more. Input for a process that no longer reads is dropped."""

    async def close_stdin(self) -> None:
        """Ends the input. May be called twice."""

    def chunks(self) -> AsyncIterator[tuple[StreamName, bytes]]:
        """Output as it comes; ends when the process has ended and all it wrote has been given."""

    async def close(self) -> None:
        """Detaches. The process goes on. May be called twice."""
