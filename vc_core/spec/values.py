"""What crosses the border between engine and plugins: frozen dataclasses and enums, nothing else."""

from __future__ import annotations

import enum
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

Report = Callable[[str], None]
"""Called with one line before each long step of an operation."""


@dataclass(frozen=True)
class PodRef:
    """Which pod a hook is about.

    Attributes:
        id: unique on this host.
        run_dir: a private folder (0700) for sockets and other runtime files of the drivers; empties with a reboot.
    """

    id: str
    run_dir: Path


class Capability(enum.StrEnum):
    """What a hypervisor or an agent can do beyond what all must."""

    UNIX_CHANNEL = "unix-channel"  # channels are unix sockets on the host
    VSOCK_CHANNEL = "vsock-channel"  # channels are vsock addresses
    PAUSE = "pause"
    SHARE = "share"  # folders of the host, given when the machine starts
    SHARE_PLUG = "share-plug"  # and later
    DRIVE_PLUG = "drive-plug"  # block devices and image files, later
    TERMINAL = "terminal"  # processes with a terminal


# --- the machine -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Guest:
    """What a machine boots.

    Attributes:
        id: names the image among others.
        kernel: an uncompressed kernel with a direct boot entry.
        initrd: the first root file system.
        parameters: the kernel's command line, one word each.
        proof_parameters: instead of them: makes the guest power off as soon as it has reached userspace.
        description: for people.
        size_bytes: of both files.
        is_current: whether new pods get it.
    """

    id: str
    kernel: Path
    initrd: Path
    parameters: tuple[str, ...]
    proof_parameters: tuple[str, ...]
    description: str = ""
    size_bytes: int = 0
    is_current: bool = True


@dataclass(frozen=True)
class KernelSource:
    """Where a guest image's kernel comes from.

    Attributes:
        image: a kernel on this host; None fetches the distribution's.
        modules: its modules' folder; None guesses it from the image's name.
        agent: the agent's program; None builds it.
    """

    image: Path | None = None
    modules: Path | None = None
    agent: Path | None = None


@dataclass(frozen=True)
class Share:
    """A folder of the host that the guest can mount.

    Attributes:
        tag: by which the guest finds it; unique in the pod, at most 31 bytes.
        path: a folder on the host.
        read_only: enforced on the host's side.
    """

    tag: str
    path: Path
    read_only: bool = True


@dataclass(frozen=True)
class Drive:
    """A block device or image file of the host, as a disk in the guest.

    Attributes:
        id: unique in the pod.
        path: the device or a raw image.
        read_only: enforced on the host's side.
    """

    id: str
    path: Path
    read_only: bool = False


Pluggable = Share | Drive


@dataclass(frozen=True)
class Plugged:
    """A device that is in the machine.

    Attributes:
        id: what to give to vm_unplug.
        driver: how the guest is to look for it: "9p", "scsi".
        address: what it is to look for: a mount tag, a SCSI "target:lun".
        is_fixed: part of the machine from its start: it cannot be unplugged.
    """

    id: str
    driver: str
    address: str
    is_fixed: bool = False


@dataclass(frozen=True)
class VmSpec:
    """The machine to make.

    Attributes:
        guest: what it boots.
        vcpus: at the start, at least 1.
        memory_mib: at the start.
        shares: present from the start.
    """

    guest: Guest
    vcpus: int
    memory_mib: int
    shares: tuple[Share, ...] = ()


class VmPhase(enum.StrEnum):
    """Where a machine is in its life."""

    ABSENT = "absent"  # never started, or destroyed
    RUNNING = "running"
    PAUSED = "paused"
    ENDED = "ended"


@dataclass(frozen=True)
class VmStatus:
    """What is true of a machine now.

    Attributes:
        phase: where it is in its life.
        pid: of the process that is the machine; 0 when there is none.
        reason: why it ended, for people; empty while it has not.
    """

    phase: VmPhase
    pid: int = 0
    reason: str = ""


@dataclass(frozen=True)
class VmStats:
    """Use of the host by one machine.

    Attributes:
        cpu_ns: processor time since its start.
        resident_bytes: memory of the host in use.
    """

    cpu_ns: int
    resident_bytes: int


@dataclass(frozen=True)
class DriverState:
    """What another process needs to take a machine over: JSON text, understood by the driver that made it."""

    json: str


class ChannelKind(enum.StrEnum):
    """How a channel is reached on the host."""

    UNIX = "unix"
    VSOCK = "vsock"


@dataclass(frozen=True)
class Channel:
    """A byte stream between one client on the host and the guest's agent.

    Attributes:
        id: unique in the pod, for vm_close_channel.
        kind: how it is reached.
        address: a socket's path, or "cid:port".
    """

    id: str
    kind: ChannelKind
    address: str


# --- containers ------------------------------------------------------------------------------------------------------


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


# --- the store -------------------------------------------------------------------------------------------------------


class Record(enum.StrEnum):
    """What the store keeps. The first group survives a reboot of the host, the second does not."""

    POD_CONFIG = "pod-config"
    CONTAINER_CONFIG = "container-config"

    POD_STATE = "pod-state"
    HYPERVISOR = "hypervisor"
    AGENT = "agent"
    CONTAINER_STATE = "container-state"
    PROCESS = "process"
    MOUNTS = "mounts"
    DEVICES = "devices"


@dataclass(frozen=True)
class StoreListing:
    """What is in the store.

    Attributes:
        pods: ids, sorted.
        problems: one line for each thing that is there and should not be, with its path.
    """

    pods: tuple[str, ...]
    problems: tuple[str, ...] = ()


class StoreLock(Protocol):
    """A lock that is held."""

    async def release(self) -> None:
        """Gives it back. May be called twice."""


# --- devices ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class HostDevice:
    """A device of the host that a container shall have.

    Attributes:
        path: on the host, absolute.
        destination: in the container.
        read_only: whether writing is refused.
    """

    path: Path
    destination: str
    read_only: bool = False


# --- diagnosis -------------------------------------------------------------------------------------------------------


class Verdict(enum.StrEnum):
    """How a finding is meant."""

    GOOD = "good"
    WARNING = "warning"  # works, but not as well as it could
    BAD = "bad"  # does not work


@dataclass(frozen=True)
class Finding:
    """One line of `vc doctor`.

    Attributes:
        subject: what was looked at.
        verdict: how it is.
        detail: what was found.
        remedy: what to do; empty when it is good.
    """

    subject: str
    verdict: Verdict
    detail: str
    remedy: str = ""
