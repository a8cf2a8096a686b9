"""Starts the first process of a sandbox, and says how to find it again."""

from __future__ import annotations

import os
import shlex
import socket
from dataclasses import dataclass
from pathlib import Path

from acme_hypervisor.cgroup import Cgroup, group_of
from acme_hypervisor.options import AcmeOptions
from vc_core.driver_kit import HostProcess, program_environment
from vc_core.spec import PodRef, VmSpec

SCHEMA = 1
_NAMESPACES = ("--mount", "--propagation=unchanged", "--uts", "--ipc", "--pid", "--fork")
_OF_PARENT = "--kill-child"
_LISTENER = 3
_SOCKET, _LOG = "agent.sock", "agent.log"


@dataclass(frozen=True)
class Sandbox:
    """What another process needs to take one over.

    Attributes:
        folder: of its files.
        cgroup: its control group.
        tags: of its shares.
        process: the one that ends with it; None before the start.
    """

    folder: str = ""
    cgroup: str = ""
    tags: tuple[str, ...] = ()
    process: HostProcess | None = None

    @property
    def socket(self) -> Path:
        """On which its agent listens."""
        return Path(self.folder) / _SOCKET

    @property
    def log(self) -> Path:
        """What its agent and its programs say."""
        return Path(self.folder) / _LOG

    @property
    def control(self) -> Cgroup:
        """Its control group."""
        return Cgroup(Path(self.cgroup))

    def find(self) -> HostProcess | None:
        """Its process, if the process that started it was killed before it stored the number."""
        return HostProcess.find(_OF_PARENT, self.folder)


def lost(pod: PodRef) -> Sandbox:
    """Find the sandbox of a pod without its saved state; an empty one if there is none."""
    process = HostProcess.find(
        _OF_PARENT, str(pod.run_dir)
    )  # by its words alone: its agent mounts over /run and /tmp
    if process is None:
        return Sandbox()
    return Sandbox(str(pod.run_dir), str(group_of(process.pid, f"vc-{pod.id}-")), (), process)


def start(sandbox: Sandbox, pod: PodRef, spec: VmSpec, options: AcmeOptions) -> HostProcess:
    """Start the agent as the first process of new namespaces; clients wait until it answers."""
    sandbox.socket.unlink(missing_ok=True)
    shares = [
        f"{share.tag}{':ro' if share.read_only else ''}={share.path}" for share in spec.shares
    ]
    with socket.socket(socket.AF_UNIX) as listener, sandbox.log.open("ab") as log:
        listener.bind(str(sandbox.socket))
        listener.listen()
        agent = [str(spec.guest.program), "--sandbox", str(_LISTENER), str(pod.run_dir), *shares]
        namespaces = [*_NAMESPACES, _OF_PARENT, *([] if options.network else ["--net"])]
        words = [
            *_joined(sandbox.control.launcher, [options.unshare, *namespaces]),
            # Not in the same one: a group whose processes share it out among groups below can have
            # none of its own.
            *_joined(sandbox.control.inside, [options.unshare, "--cgroup"]),
            *agent,
        ]
        given = {1: log.fileno(), 2: log.fileno(), _LISTENER: listener.fileno()}
        actions: list[tuple[object, ...]] = [(os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0)]
        actions += [(os.POSIX_SPAWN_DUP2, ours, theirs) for theirs, ours in given.items()]
        pid = os.posix_spawn(
            words[0], words, program_environment(), file_actions=actions, setsid=True
        )
    sandbox.control.settle(pid)
    return HostProcess.of(pid)


def _joined(group: Path, words: list[str]) -> list[str]:
    """Prefix of a command that runs the rest of it in a control group."""
    return [
        "/bin/sh",
        "-ec",
        f'cd /; echo 0 > {shlex.quote(str(group))}/cgroup.procs; exec "$@"',
        "join",
        *words,
    ]
