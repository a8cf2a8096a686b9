"""Ports of the host: checks that they are free, finds their owners, chooses free ones."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import os
import socket
from collections.abc import Container, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from msgspec import structs

from vc_core.spec import PortMapping, PortProtocol
from vc_network.errors import NetworkFailure

_KINDS = {PortProtocol.TCP: socket.SOCK_STREAM, PortProtocol.UDP: socket.SOCK_DGRAM}


def check_no_v6_loopback(wanted: Iterable[PortMapping]) -> None:
    """Refuses ports of ::1, for networks that redirect ports by the host's rules.

    Raises:
        NetworkFailure: there is one.
    """
    for port in wanted:
        address = ipaddress.ip_address(port.host_ip)
        if address.version == 6 and address.is_loopback:
            raise NetworkFailure(
                f"no port of {address} can lead into a pod; publish on 127.0.0.1 or another address"
            )


@contextmanager
def reserved(
    wanted: Iterable[PortMapping], avoid: Container[tuple[str, int]] = ()
) -> Iterator[tuple[PortMapping, ...]]:
    """Yields the same ports with their numbers on the host, reserved for the length of the block.

    Of the free ports, none is chosen whose protocol and number are in `avoid`.

    A TCP socket that is bound and does not listen still permits another socket with SO_REUSEADDR
    to listen.

    Raises:
        NetworkFailure: a port is taken or not permitted; names it and, where visible, its owner.
    """
    with contextlib.ExitStack() as stack:
        yield tuple([_reserve(stack, port, avoid) for port in wanted])


def _reserve(
    stack: contextlib.ExitStack, port: PortMapping, avoid: Container[tuple[str, int]]
) -> PortMapping:
    version = ipaddress.ip_address(port.host_ip).version
    bound = socket.socket(
        socket.AF_INET if version == 4 else socket.AF_INET6, _KINDS[port.protocol]
    )
    try:
        if port.protocol is PortProtocol.TCP:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if version == 6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        bound.bind((port.host_ip, port.host_port))
        number = bound.getsockname()[1]
    except OSError as error:
        bound.close()
        raise NetworkFailure(_refusal(port, error)) from error
    if port.host_port == 0 and (port.protocol.value, number) in avoid:
        stack.callback(bound.close)  # later: the kernel chooses another one
        return _reserve(stack, port, avoid)
    if port.protocol is PortProtocol.TCP:
        stack.callback(bound.close)
    else:
        bound.close()  # both would receive datagrams
    return structs.replace(port, host_port=number)


def _refusal(port: PortMapping, error: OSError) -> str:
    name = f"port {port.host_port}/{port.protocol} of {port.host_ip}"
    if error.errno == errno.EADDRINUSE:
        owner = _owner(port)
        by = f" by {owner}" if owner else ""
        return f"{name} is taken{by}; choose another port, or 0 for any free one"
    if error.errno == errno.EADDRNOTAVAIL:
        return f"this host has no address {port.host_ip}; publish on one of its own"
    if error.errno == errno.EACCES:
        return f"{name} is not for ordinary users; choose a port above 1023"
    return f"{name} cannot be used: {error.strerror}"


def _owner(port: PortMapping) -> str:
    """Returns the process that uses a port, as text for people; empty when it is not visible."""
    inodes = set()
    for name in (port.protocol.value, f"{port.protocol}6"):
        for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]:
            fields = line.split()
            if int(fields[1].rpartition(":")[2], 16) == port.host_port:
                inodes.add(f"socket:[{fields[9]}]")
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            with contextlib.suppress(OSError):  # it ended, or belongs to another user
                if any(os.readlink(entry) in inodes for entry in (process / "fd").iterdir()):  # noqa: PTH115 (a text)
                    return f"{(process / 'comm').read_text().strip()} (process {process.name})"
    return ""
