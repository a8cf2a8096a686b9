"""Starts the filter of names (names.py) in a pod's namespace, and finds it again."""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import Iterable
from pathlib import Path

import msgspec

from vc_core.driver_kit import HostProcess
from vc_core.spec import NOT_PUBLIC, NetworkPolicy, NetworkRequest, Reach
from vc_network.errors import NetworkFailure
from vc_network.namespace import CHILDS_DESCRIPTOR, folder, noted, program, spawn
from vc_network.ruleset import opened

RECORD = "names.json"
_PID_FILE = "names.pid"
_LOG = "names.log"
_ANSWER_BYTES = 1 << 10
# Addresses that a name never has, also where private ones are reached.
_LOCAL = ("0.0.0.0/8", "127.0.0.0/8", "224.0.0.0/3", "::/96", "::ffff:0:0/96", "ff00::/8")


async def start(
    run_dir: Path,
    enter: list[str],
    request: NetworkRequest,
    listen: Iterable[str],
    servers: Iterable[str],
    own: Iterable[str],
) -> None:
    """Starts the filter; it answers when this returns.

    Args:
        run_dir: of the pod.
        enter: words before a command that is to run in the pod's namespace.
        request: of the pod.
        listen: addresses in the namespace, where the guest asks.
        servers: addresses of the DNS servers to ask, as the namespace reaches them.
        own: the host's addresses.

    Raises:
        NetworkFailure: it does not start.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setblocking(False)
    log = folder(run_dir) / _LOG
    with ours:
        with theirs:
            command = [*enter, sys.executable, "-I", "-m", "vc_network.names"]
            command += [str(CHILDS_DESCRIPTOR), str(folder(run_dir) / _PID_FILE)]
            spawn(command, log, theirs.fileno())
        orders = {
            "listen": tuple(listen),
            "servers": tuple(servers),
            "openings": _openings(request.policy),
            "denied": [rule for rule in request.policy.deny if rule.network is None],
            "private": _private(request.reach, own),
            "nft": program("nft"),
            "record": str(folder(run_dir) / RECORD),
        }
        loop = asyncio.get_running_loop()
        try:
            await loop.sock_sendall(ours, msgspec.json.encode(orders))
            answer = await loop.sock_recv(ours, _ANSWER_BYTES)
        except (BrokenPipeError, ConnectionResetError):
            answer = b""
    if answer != b"ready":
        said = log.read_text(errors="replace").strip().splitlines()
        reason = said[-1] if said else "its process ended"
        raise NetworkFailure(f"the filter of names does not start: {reason}")


def process_of(run_dir: Path) -> HostProcess | None:
    """Returns the filter of a pod, alive or not; None when there is none."""
    return noted(folder(run_dir) / _PID_FILE)


def _openings(policy: NetworkPolicy) -> list[dict[str, object]]:
    return [
        {"rule": rule, "sets": {str(v): opened(number, v) for v in (4, 6)}}
        for number, rule in enumerate(policy.allow)
        if rule.network is None
    ]


def _private(reach: Reach, own: Iterable[str]) -> list[str]:
    if reach is Reach.FULL:
        return list(_LOCAL)
    return [*map(str, NOT_PUBLIC), *own]
