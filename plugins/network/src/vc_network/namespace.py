"""A pod's network namespace: the process that keeps it, and the tap in it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from vc_core.driver_kit import HostProcess, find_program, program_environment
from vc_network import inside
from vc_network.errors import NetworkFailure
from vc_network.layout import TAP

_FOLDER = "network"
_KEEPER = "keeper.pid"
_TERM_S = 2.0
CHILDS_DESCRIPTOR = 3
"""Number of the descriptor that `spawn` passes."""

_MESSAGE_BYTES = 1 << 16
_DESCRIPTOR_BYTES = 4  # a C int
TUN = Path("/dev/net/tun")
TUN_REMEDY = f"modprobe tun && chmod 666 {TUN}"
PACKAGES = {
    "unshare": "util-linux",
    "sleep": "coreutils",
    "nft": "nftables",
    "ip": "iproute2",
    "tc": "iproute2",
    "dnsmasq": "dnsmasq-base",
    "pasta": "passt",
    "nsenter": "util-linux",
    "prlimit": "util-linux",
    "iptables": "iptables",
    "ip6tables": "iptables",
}
"""Programs of the host that this distribution runs, and their Debian packages."""


def program(name: str) -> str:
    """Returns the path of a program of the host.

    Raises:
        NetworkFailure: it is missing; names its package.
    """
    path = find_program(name)
    if path is None:
        raise NetworkFailure(f"{name} is missing; install the package {PACKAGES[name]}")
    return path


def check_device() -> None:
    """Raises NetworkFailure when this user is not permitted to create taps."""
    if not os.access(TUN, os.R_OK | os.W_OK):
        reason = "may not be opened by this user" if TUN.exists() else "is missing"
        raise NetworkFailure(f"{TUN} {reason}; as root: {TUN_REMEDY}")


def folder(run_dir: Path) -> Path:
    """Returns the folder of the files of a pod's network."""
    return run_dir / _FOLDER


@dataclass(frozen=True)
class Plan:
    """The steps to carry out in a namespace.

    Attributes:
        sysctls: values by path below /proc/sys/net.
        rules: input of nft.
    """

    sysctls: Mapping[str, str]
    rules: str


@dataclass(frozen=True)
class Namespace:
    """A new namespace, while its creator is connected to its keeper.

    Attributes:
        keeper: the process that keeps it.
        channel: the connection to the keeper.
    """

    keeper: HostProcess
    channel: socket.socket

    @classmethod
    async def make(cls, run_dir: Path) -> Self:
        """Creates a namespace and its keeper, which ends if its creator ends before `keep`.

        Raises:
            NetworkFailure: the kernel refused, or a program is missing.
        """
        if not sys.executable:
            raise NetworkFailure("this Python has no path of its own (sys.executable is empty)")
        folder(run_dir).mkdir(mode=0o700, parents=True, exist_ok=True)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        pid_file = folder(run_dir) / _KEEPER
        with theirs:
            command = [program("unshare"), "--user", "--map-root-user", "--net"]
            command += [sys.executable, "-I", "-S", inside.__file__, str(CHILDS_DESCRIPTOR)]
            command += [str(pid_file), program("sleep"), "infinity"]
            log = folder(run_dir) / "keeper.log"
            keeper = spawn(command, log, theirs.fileno())
        namespace = cls(keeper, ours)
        try:
            answer, _ = await namespace._answer()
        except BaseException:
            await namespace.end()
            raise
        if answer != inside.DONE:
            said = log.read_text(errors="replace").strip().splitlines()
            await namespace.end()
            raise NetworkFailure(
                f"no network namespace can be made: {said[-1] if said else 'its process ended'}"
            )
        return namespace

    async def open_tap(self) -> int:
        """Makes the tap, which is down; returns its descriptor, which the caller closes.

        The kernel drops what is written to a tap that is down.

        Raises:
            NetworkFailure: the kernel refuses.
        """
        (tap,) = await self._do("tap", TAP)
        return tap

    async def enforce(self, plan: Plan) -> None:
        """Carries out the plan.

        Raises:
            NetworkFailure: a step failed.
        """
        for path, value in plan.sysctls.items():
            await self._do("write", value, f"/proc/sys/net/{path}")
        await self._do("run", plan.rules, program("nft"), "-f", "-")

    async def connect(self, links: str, rates: str) -> None:
        """Connects the tap. The plan is in force, and the rates are before the tap is up.

        Args:
            links: input of `ip -batch`.
            rates: input of `tc -batch`; may be empty.

        Raises:
            NetworkFailure: a step failed.
        """
        if rates:
            await self._do("run", rates, program("tc"), "-batch", "-")
        await self._do("run", links, program("ip"), "-batch", "-")

    async def keep(self) -> None:
        """Makes the namespace outlive this process.

        Raises:
            NetworkFailure: its keeper has ended.
        """
        await self._do("keep")
        self.channel.close()

    async def end(self) -> None:
        """Kills the keeper: the namespace is gone when no other process uses it."""
        self.channel.close()
        await self.keeper.kill(_TERM_S)

    async def _do(self, *fields: str) -> list[int]:
        """Has the keeper do something (inside.py); returns the descriptors that it sends."""
        loop = asyncio.get_running_loop()
        message = b"".join(field.encode() + b"\0" for field in fields)
        try:
            await loop.sock_sendall(self.channel, message)
            answer, descriptors = await self._answer()
        except (BrokenPipeError, ConnectionResetError):
            answer, descriptors = b"", []
        except OSError as error:  # as a message that is longer than the socket's buffer
            raise NetworkFailure(
                f"the pod's network namespace cannot be set up: its process is not reached: "
                f"{error.strerror}"
            ) from error
        if answer != inside.DONE:
            reason = answer.decode(errors="replace") or "its process ended"
            raise NetworkFailure(f"the pod's network namespace cannot be set up: {reason}")
        return descriptors

    async def _answer(self) -> tuple[bytes, list[int]]:
        await _readable(self.channel)
        # Not socket.recv_fds: Python 3.11 ignores its flags, and every child would have the tap.
        answer, parts, _, _ = self.channel.recvmsg(
            _MESSAGE_BYTES, socket.CMSG_SPACE(_DESCRIPTOR_BYTES), socket.MSG_CMSG_CLOEXEC
        )
        descriptors = [int.from_bytes(data, sys.byteorder) for _, _, data in parts]
        return answer, descriptors


def keeper_of(run_dir: Path) -> HostProcess | None:
    """Returns the process that keeps a pod's namespace, alive or not; None without a record."""
    return noted(folder(run_dir) / _KEEPER)


def noted(pid_file: Path) -> HostProcess | None:
    """Returns the process of a pid file, alive or not; None without one."""
    try:
        pid, start_ticks = pid_file.read_text().split()
        return HostProcess(int(pid), int(start_ticks))
    except (FileNotFoundError, ValueError):  # never created, or its keeper ended while it wrote
        return None


async def end_all(processes: Iterable[HostProcess | None]) -> None:
    """Ends processes one after the other."""
    for process in processes:
        if process is not None:
            await process.kill(_TERM_S)


def entering(keeper: HostProcess) -> list[str]:
    """Returns the words before a command that is to run in the namespace of `keeper`."""
    words = [program("nsenter"), "--target", str(keeper.pid)]
    return [*words, "--user", "--net", "--preserve-credentials", "--"]


def spawn(command: list[str], log: Path, descriptor: int) -> HostProcess:
    """Starts a process that outlives this one, and leaves this one's folder and umask itself.

    Args:
        command: its program and arguments.
        log: file for its output, made anew.
        descriptor: passed as number CHILDS_DESCRIPTOR.
    """
    actions: list[tuple[object, ...]] = [
        (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, str(log), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600),
        (os.POSIX_SPAWN_DUP2, 1, 2),
    ]
    copy = os.dup(descriptor)
    with contextlib.ExitStack() as stack:
        stack.callback(os.close, copy)
        # A number above the child's: dup2 onto itself would leave it closed on exec.
        if copy == CHILDS_DESCRIPTOR:
            copy = os.dup(copy)
            stack.callback(os.close, copy)
        actions.append((os.POSIX_SPAWN_DUP2, copy, CHILDS_DESCRIPTOR))
        pid = os.posix_spawn(
            command[0],
            command,
            {"PATH": program_environment()["PATH"]},  # secrets of the caller's stay with it
            file_actions=actions,
            setsid=True,
            setsigdef=[signal.SIGPIPE, signal.SIGINT, signal.SIGTERM, signal.SIGHUP],
            setsigmask=[],
        )
    return HostProcess.of(pid)


async def _readable(channel: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_reader(channel, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(channel)
