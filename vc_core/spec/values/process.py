"""Values of the contract about processes."""

from __future__ import annotations

import enum
from collections.abc import AsyncIterator
from typing import Protocol

from msgspec import Struct

from vc_core.spec.values.vm import Channel

# The defaults of container engines: bounding, effective and permitted.
DEFAULT_CAPABILITIES = tuple(
    f"CAP_{name}"
    for name in (
        *(
            "CHOWN",
            "DAC_OVERRIDE",
            "FOWNER",
            "FSETID",
            "KILL",
            "MKNOD",
            "NET_BIND_SERVICE",
            "NET_RAW",
        ),
        *("SETFCAP", "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT", "AUDIT_WRITE"),
    )
)


DEFAULT_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""The PATH of an environment that does not set it."""


class Capabilities(Struct, frozen=True, kw_only=True):
    """The five sets of capabilities(7), by names like "CAP_CHOWN"."""

    bounding: tuple[str, ...] = ()
    effective: tuple[str, ...] = ()
    permitted: tuple[str, ...] = ()
    inheritable: tuple[str, ...] = ()
    ambient: tuple[str, ...] = ()


class Rlimit(Struct, frozen=True, kw_only=True):
    """One limit of getrlimit(2).

    Attributes:
        kind: the name, like "RLIMIT_NOFILE".
        soft: the enforced limit.
        hard: the value up to which the process may raise the soft limit.
    """

    kind: str
    soft: int
    hard: int


class ProcessSpec(Struct, frozen=True, kw_only=True):
    """A process to start in a container.

    For a process that `Container.exec` starts, empty or None fields default to the values of the
    container's first process. Agents get `cwd`, `user` and `no_new_privileges` filled in.

    Attributes:
        args: the whole argv.
        env: "NAME=value" words; the value may contain "=".
        cwd: absolute path in the container; empty for "/".
        user: "uid", "uid:gid", or names from the container's /etc/passwd and /etc/group; empty
            for root.
        groups: supplementary groups, by number or name.
        terminal: whether it gets a terminal.
        no_new_privileges: whether set-uid programs gain no privileges; None for yes.
        capabilities: None for DEFAULT_CAPABILITIES.
        rlimits: limits of resources.
        umask: None for that of the guest.
        oom_score_adj: from -1000 to 1000; None leaves it unchanged.
        rows: height of the terminal, in characters.
        columns: width of the terminal, in characters.
    """

    args: tuple[str, ...]
    env: tuple[str, ...] = ()
    cwd: str = ""
    user: str = ""
    groups: tuple[str, ...] = ()
    terminal: bool = False
    no_new_privileges: bool | None = None
    capabilities: Capabilities | None = None
    rlimits: tuple[Rlimit, ...] = ()
    umask: int | None = None
    oom_score_adj: int | None = None
    rows: int = 24
    columns: int = 80


class FilesVerb(enum.StrEnum):
    """The operation on the files of a container."""

    READ = "read"  # writes a tar archive of them to stdout
    WRITE = "write"  # unpacks the tar archive on stdin
    LIST = "list"  # writes a line of JSON for each
    WATCH = "watch"  # writes an empty object, then a line of JSON for each change


class FilesRequest(Struct, frozen=True, kw_only=True):
    """A request for an agent's process that accesses a container's files (agent_serve_files).

    Attributes:
        verb: the operation.
        path: absolute path in the container.
        name: name of the file or folder in an archive. For READ, empty selects its own name, and
            "." the contents of a folder. For WRITE, the entry `name` is unpacked into the folder
            `path`, or as `path` where that is no folder; "." unpacks everything into the folder
            `path`, which is created when it does not exist and the path does not end in "/".
            Only a folder is unpacked as a path that ends in "/". Existing folders keep owner,
            mode and time.
    """

    verb: FilesVerb
    path: str
    name: str = ""


class Stdio(enum.StrEnum):
    """What a process's standard streams are connected to."""

    NULL = "null"  # no input; output is discarded
    PIPES = "pipes"  # kept for agent_attach; a full pipe blocks the process
    LOG = "log"  # no input; output goes to a log on the host, and to a client while attached


class StreamName(enum.StrEnum):
    """The name of an output stream of a process."""

    STDOUT = "stdout"
    STDERR = "stderr"


class ExitStatus(Struct, frozen=True, kw_only=True):
    """How a process ended.

    Attributes:
        code: exit code; 128 + signal when a signal ended it.
        signal: number of the signal, 0 when it exited by itself.
        ended_ns: time of the end by the guest's clock, in nanoseconds since the epoch; 0 when
            unknown. Not part of the comparison of two values.
        out_of_memory: whether the process, or the one whose end ended it, was killed at the
            container's limit of memory.
    """

    code: int
    signal: int = 0
    ended_ns: int = 0
    out_of_memory: bool = False

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ExitStatus) and self._compared() == other._compared()

    def __hash__(self) -> int:
        return hash(self._compared())

    def _compared(self) -> tuple[int, int, bool]:
        return self.code, self.signal, self.out_of_memory


class StandIn(Struct, frozen=True, kw_only=True):
    """What a program that stands in on the host for a process of a guest does beside that.

    Attributes:
        ends_machine: the machine ends after the program, however that has ended.
        listener: descriptor of a listening TCP socket, which the program inherits, and which gets
            connections that the kernel has redirected to it in its network namespace. The program
            forwards each to the address and port that it was meant for, in the guest.
        dial_channel: a channel of the machine for that, which the caller has opened; None without
            a listener.
        memory_group: path of the container's control group of memory, which the program may join.
            If the process is killed at its container's limit of memory, the program is killed there
            by the host's kernel for want of memory: so those see it who watch the group.
        starter: descriptor of a listening Unix socket, which the program inherits. Whoever connects
            to it as the same user asks the program to start the container. Only for an agent with
            Capability.STARTER.
    """

    ends_machine: bool = False
    listener: int | None = None
    dial_channel: Channel | None = None
    memory_group: str = ""
    starter: int | None = None


class ProcessInfo(Struct, frozen=True, kw_only=True):
    """One row of a container's process list.

    Attributes:
        pid: in the container's pid namespace.
        parent_pid: in the container's pid namespace; 0 when the parent is outside.
        uid: effective user.
        state: one letter, as in proc(5).
        resident_bytes: resident memory, in bytes.
        cpu_ns: processor time used, in nanoseconds.
        command: argv.
    """

    pid: int
    parent_pid: int
    uid: int
    state: str
    resident_bytes: int
    cpu_ns: int
    command: tuple[str, ...]


class ProcessStreams(Protocol):
    """The standard streams of a process in the guest. At most one client has them at a time."""

    async def write(self, data: bytes) -> None:
        """Sends input; returns when more input can be sent.

        Input for a process that has closed its stdin is dropped.
        """

    async def close_stdin(self) -> None:
        """Ends the input. May be called twice."""

    def chunks(self) -> AsyncIterator[tuple[StreamName, bytes]]:
        """Yields output as it arrives, until the process has ended and all output was yielded."""

    async def close(self) -> None:
        """Detaches. The process keeps running. May be called twice."""
