"""The program pasta: connects a namespace to the host's own sockets, without privileges."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from vc_core.driver_kit import HostProcess
from vc_core.spec import PortMapping, PortProtocol
from vc_network import layout, starting
from vc_network.errors import NetworkFailure
from vc_network.layout import V4, V6, Family
from vc_network.namespace import folder, keeper_of, program

_PID_FILE = "pasta.pid"
_LOCK_FILE = "pasta.lock"
_OPEN_FILES = 16384  # a connection to a published port takes up to six
_DEFAULT_V6 = "0" * 32


async def start(
    run_dir: Path, keeper: HostProcess, ports: Iterable[PortMapping], families: Iterable[Family]
) -> None:
    """Starts pasta for the namespace of `keeper`; ports accept connections when this returns.

    Raises:
        NetworkFailure: pasta failed; quotes pasta.
    """
    command = [program("pasta"), *_options(tuple(ports), tuple(families))]
    command += ["--pid", str(folder(run_dir) / _PID_FILE), str(keeper.pid)]
    try:
        await starting.start(folder(run_dir) / _LOCK_FILE, command, _OPEN_FILES)
    except NetworkFailure as error:
        raise NetworkFailure(f"pasta does not start: {error}") from error


async def end(run_dir: Path) -> None:
    """Ends the pasta of a pod, also one that a killed caller was starting. Callable twice."""

    def find() -> tuple[HostProcess, ...]:
        found = _found(run_dir)
        return () if found is None else (found,)

    await starting.end(folder(run_dir) / _LOCK_FILE, lambda: _noted(run_dir), find)


def _options(ports: tuple[PortMapping, ...], families: tuple[Family, ...]) -> list[str]:
    words = ["--quiet", "--no-map-gw", "--no-dhcp", "--no-dhcpv6", "--no-ra", "--no-ndp"]
    words += ["--ns-ifname", layout.UPLINK, "--ns-mac-addr", layout.UPLINK_MAC]
    words += [
        "--mac-addr",
        layout.NEXT_HOP_MAC,
        "--mtu",
        str(layout.MTU),
        "--dns-forward",
        V4.resolver,
    ]
    for family in families:
        words += ["--address", family.guest, "--gateway", family.next_hop]
    if V6 not in families:
        words.append("--ipv4-only")
    elif V4 not in families:
        words.append("--ipv6-only")
    for protocol, option in ((PortProtocol.TCP, "--tcp-ports"), (PortProtocol.UDP, "--udp-ports")):
        chosen = [
            f"{port.host_ip}/{port.host_port}:{port.guest_port}"
            for port in ports
            if port.protocol is protocol
        ]
        for value in chosen or ["none"]:
            words += [option, value]
    words += ["--tcp-ns", "none", "--udp-ns", "none"]
    # pasta started by root stays root, without capabilities outside of its own user namespace:
    # another user is not permitted to enter the keeper's.
    return [*words, "--runas", "0"] if os.geteuid() == 0 else words


def process_of(run_dir: Path) -> HostProcess | None:
    """Returns the pasta of a pod; None when there is none."""
    return _noted(run_dir) or _found(run_dir)


def _noted(run_dir: Path) -> HostProcess | None:
    pid_file = folder(run_dir) / _PID_FILE
    try:
        process = HostProcess.of(int(pid_file.read_text()))
        words = Path(f"/proc/{process.pid}/cmdline").read_bytes().split(b"\0")
    except (FileNotFoundError, ProcessLookupError, ValueError):
        return None
    return process if str(pid_file).encode() in words else None


def _found(run_dir: Path) -> HostProcess | None:
    """Returns a process that is the pasta of a pod by its command line."""
    pid_file = folder(run_dir) / _PID_FILE
    if not pid_file.parent.exists():
        return None
    # On a full disk pasta runs on without having written its file. Its mount namespace does not
    # tell whose it is, as it has left ours; the number of its keeper does.
    keeper = keeper_of(run_dir)
    return HostProcess.find("--pid", str(pid_file), *([str(keeper.pid)] if keeper else []))


def families() -> tuple[Family, ...]:
    """Returns the versions of IP for which this host has a default route.

    Raises:
        NetworkFailure: there is none.
    """
    found = []
    if any(
        line.split()[1] == "00000000"
        for line in Path("/proc/net/route").read_text().splitlines()[1:]
    ):
        found.append(V4)
    routes = Path("/proc/net/ipv6_route")
    lines = routes.read_text().splitlines() if routes.exists() else []
    if any(
        fields[:2] == [_DEFAULT_V6, "00"] and fields[9] != "lo"
        for fields in (line.split() for line in lines)
    ):
        found.append(V6)
    if not found:
        raise NetworkFailure(
            "this host has no default route: pasta has nothing to connect a pod to"
        )
    return tuple(found)
