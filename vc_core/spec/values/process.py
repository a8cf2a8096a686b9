"""What crosses the border about processes."""

from __future__ import annotations

import enum
from collections.abc import AsyncIterator
from typing import Protocol

from msgspec import Struct

# What container engines agree on: bounding, effective and permitted.
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
"""The word of an environment in which nobody has said where programs are."""


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
        kind: like "RLIMIT_NOFILE".
        soft: what is enforced.
        hard: up to where the process may raise it.
    """

    kind: str
    soft: int
    hard: int


class ProcessSpec(Struct, frozen=True, kw_only=True):
    """A process to start in a container.

    What is empty or None of one that `Container.exec` starts is as the container's first process
    has it. Agents get `cwd`, `user` and `no_new_privileges` filled in.

    Attributes:
        args: the whole argv.
        env: "NAME=value" words; the value may hold "=".
        cwd: absolute, in the container; empty for "/".
        user: "uid", "uid:gid", or names known inside the container's /etc/passwd and /etc/group;
            empty for root.
        groups: more groups, by number or name.
        terminal: whether it gets one.
        no_new_privileges: whether set-uid programs lose their power; None for yes.
        capabilities: None for DEFAULT_CAPABILITIES.
        rlimits: limits of resources.
        umask: None for that of the guest.
        oom_score_adj: from -1000 to 1000; None leaves it alone.
        rows: the terminal's height.
        columns: the terminal's width.
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
    """What is to be done with files of a container."""

    READ = "read"  # a tar archive of them on stdout
    WRITE = "write"  # the tar archive on stdin is unpacked
    LIST = "list"  # a line of JSON for each
    WATCH = "watch"  # a line of JSON for each change, after an empty object


class FilesRequest(Struct, frozen=True, kw_only=True):
    """What a process of the agent's own is to do with a container's files (agent_serve_files).

    Attributes:
        verb: what.
        path: in the container, absolute.
        name: what a file or folder is called in an archive. For READ, its own name when empty; "."
            for what is in a folder. For WRITE, it is unpacked into the folder `path`, or as `path`
            where that is none; "." is all, into the folder `path`, which is made when it is not
            there and its path does not end in "/". Nothing but a folder is unpacked as a path that
            ends in "/". Folders that are there keep owner, mode and time.
    """

    verb: FilesVerb
    path: str
    name: str = ""


class Stdio(enum.StrEnum):
    """What a process's standard streams are connected to."""

    NULL = "null"  # no input; output is thrown away
    PIPES = "pipes"  # held for agent_attach; a full pipe makes the process wait
    LOG = "log"  # no input; output goes to a log on the host, and from now on to who attaches


class StreamName(enum.StrEnum):
    """Which of a process's output streams."""

    STDOUT = "stdout"
    STDERR = "stderr"


class ExitStatus(Struct, frozen=True, kw_only=True):
    """How a process ended.

    Attributes:
        code: its exit code; 128 + signal when a signal ended it.
        signal: the signal's number, 0 when it exited by itself.
        ended_ns: when, since the epoch and by the guest's clock; 0 when nobody knows. Two that
            differ in this only are equal.
        out_of_memory: whether its container's limit of memory has cost it, or the process that it
            ended by, its life.
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


class ProcessInfo(Struct, frozen=True, kw_only=True):
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


class ProcessStreams(Protocol):
    """The standard streams of a process in the guest. One client at a time."""

    async def write(self, data: bytes) -> None:
        """Sends input; returns when the way is free for more.

        Input for a process that no longer reads is dropped.
        """

    async def close_stdin(self) -> None:
        """Ends the input. May be called twice."""

    def chunks(self) -> AsyncIterator[tuple[StreamName, bytes]]:
        """Output as it comes; ends when the process has ended and all it wrote has been given."""

    async def close(self) -> None:
        """Detaches. The process goes on. May be called twice."""
