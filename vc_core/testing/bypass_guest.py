"""Runs in a guest and tries to reach what the host must refuse; imports only the standard library.

usage: python3 - ATTEMPTS < bypass_guest.py

ATTEMPTS is a JSON list of lists: a name, the way, and its arguments. Writes a JSON object to
standard output: the name of each attempt, and whether something answered.
"""

import contextlib
import fcntl
import ipaddress
import json
import os
import socket
import struct
import sys
import time
from collections.abc import Callable
from typing import Any

_REFUSED_S = 5.0
_SILENT_S = 2.0
_EXPIRED_S = 30.0
_SIOCGIFHWADDR = 0x8927
_ETH_ALL, _ETH_V4, _ETH_V6 = 3, 0x0800, 0x86DD
_VSOCK_HOST = 2


def main(attempts: list[list[Any]]) -> None:
    """Makes the attempts in their order, frames last."""
    answered = {}
    frames = []
    for name, way, *arguments in attempts:
        if way == "frame":
            frames.append((name, arguments))
        else:
            answered[name] = bool(WAYS[way](*arguments))
    if frames:
        answered |= _frames(frames)
    json.dump(answered, sys.stdout)


def tcp(address: str, port: int) -> bool:
    """Returns whether somebody accepts a connection."""
    try:
        socket.create_connection((address, port), timeout=_REFUSED_S).close()
    except OSError:
        return False
    return True


def expired(address: str, port: int) -> bool:
    """Returns whether connections are still accepted long after the answer has expired."""
    end = time.monotonic() + _EXPIRED_S
    while tcp(address, port):
        if time.monotonic() > end:
            return True
        time.sleep(1)
    return False


def udp(address: str, port: int) -> bool:
    """Returns whether a datagram is answered."""
    return bool(_exchanged(address, port, b"bypass"))


def lookup(name: str) -> bool:
    """Returns whether a name has an address, by the guest's own resolver."""
    try:
        return bool(socket.getaddrinfo(name, 443, type=socket.SOCK_STREAM))
    except OSError:
        return False


def dns(address: str, labels: list[str], transport: str) -> bool:
    """Returns whether a DNS server has an address for a name."""
    name = b"".join(bytes([len(label)]) + label.encode() for label in labels) + b"\0"
    query = struct.pack("!6H", 4711, 0x0100, 1, 0, 0, 0) + name + struct.pack("!2H", 1, 1)
    if transport == "udp":
        answer = _exchanged(address, 53, query)
    else:
        try:
            with socket.create_connection((address, 53), timeout=_REFUSED_S) as connection:
                connection.sendall(struct.pack("!H", len(query)) + query)
                answer = connection.recv(2 + 512)[2:]
        except OSError:
            return False
    return len(answer) >= 12 and struct.unpack("!H", answer[6:8])[0] > 0


def icmp(address: str) -> bool:
    """Returns whether an echo by a raw socket is answered by this address."""
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as raw:
        raw.settimeout(_SILENT_S)
        body = struct.pack("!BBHHH", 8, 0, 0, 7, 7)
        body = body[:2] + struct.pack("!H", _checksum(body)) + body[4:]
        with contextlib.suppress(OSError):
            raw.sendto(body, (address, 0))
            while True:
                packet, (sender, _) = raw.recvfrom(2048)
                if sender == address and packet[(packet[0] & 15) * 4] == 0:
                    return True
    return False


def raw(address: str, protocol: int) -> bool:
    """Sends a packet of another protocol; the outside sees whether it arrives."""
    sender = socket.socket(socket.AF_INET, socket.SOCK_RAW, protocol)
    with sender, contextlib.suppress(OSError):
        sender.sendto(b"bypass" * 4, (address, 0))
    return False


def vsock(port: int) -> bool:
    """Returns whether the host listens on a vsock port."""
    try:
        with socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM) as connection:
            connection.settimeout(_REFUSED_S)
            connection.connect((_VSOCK_HOST, port))
    except OSError:
        return False
    return True


WAYS: dict[Any, Callable[..., bool]] = {
    "tcp": tcp,
    "udp": udp,
    "lookup": lookup,
    "dns": dns,
    "icmp": icmp,
    "raw": raw,
    "vsock": vsock,
    "expired": expired,
}


def _exchanged(address: str, port: int, data: bytes) -> bytes:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as sender:
        sender.settimeout(_SILENT_S)
        try:
            sender.connect((address, port))
            sender.send(data)
            return sender.recv(2048)
        except OSError:
            return b""


def _frames(frames: list[tuple[str, list[Any]]]) -> dict[str, bool]:
    """Sends frames as no socket would, and returns for each whether its destination answered."""
    link = _Link()
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_ALL)) as wire:
        wire.bind((link.name, _ETH_ALL))
        for _, arguments in frames:
            for frame in link.built(*arguments):
                wire.send(frame)
        wire.settimeout(_SILENT_S)
        senders = set()
        with contextlib.suppress(TimeoutError):
            while True:
                frame, (_, _, kind, *_) = wire.recvfrom(1 << 16)
                if kind != socket.PACKET_OUTGOING:
                    senders.add(_answer_of(frame))
    return {name: arguments[1] in senders for name, arguments in frames}


def _answer_of(frame: bytes) -> str:
    """Returns the sender of a datagram or an accepted connection; empty for other frames."""
    kind, packet = struct.unpack("!H", frame[12:14])[0], frame[14:]
    if kind == _ETH_V4 and packet[9] in (6, 17):
        body, source = packet[(packet[0] & 15) * 4 :], packet[12:16]
        protocol = packet[9]
    elif kind == _ETH_V6 and packet[6] in (6, 17):
        body, source = packet[40:], packet[8:24]
        protocol = packet[6]
    else:
        return ""
    is_answer = protocol == 17 or (len(body) > 13 and body[13] & 0x12 == 0x12)
    return str(ipaddress.ip_address(source)) if is_answer else ""


class _Link:
    """The guest's interface, and the router behind it."""

    def __init__(self) -> None:
        routes = [line.split() for line in open("/proc/net/route").readlines()[1:]]  # noqa: SIM115, PTH123
        self.name, gateway = next(
            (fields[0], socket.inet_ntoa(struct.pack("<I", int(fields[2], 16))))
            for fields in routes
            if fields[1] == "00000000"
        )
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
            request = struct.pack("256s", self.name.encode())
            self.mac = fcntl.ioctl(any_socket, _SIOCGIFHWADDR, request)[18:24]
            any_socket.connect((gateway, 9))
            self.v4 = any_socket.getsockname()[0]
            with contextlib.suppress(OSError):
                any_socket.send(b"")
        self.v6 = "::"
        with contextlib.suppress(OSError), socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as one:
            one.connect(("2001:db8::1", 9))
            self.v6 = one.getsockname()[0]
        tcp(gateway, 9)  # so that its MAC is known
        arp = [line.split() for line in open("/proc/net/arp").readlines()[1:]]  # noqa: SIM115, PTH123
        text = next(fields[3] for fields in arp if fields[0] == gateway)
        self.router = bytes.fromhex(text.replace(":", ""))

    def built(
        self, protocol: str, target: str, port: int, how: str = "", source: str = ""
    ) -> list[bytes]:
        """Returns the frames of one packet.

        Args:
            protocol: "tcp" for a SYN, "udp" for a datagram.
            target: the destination.
            port: the destination's port.
            how: "mac" for a forged MAC, "fragments" for fragments of 8 bytes.
            source: a forged source address; empty for the guest's.
        """
        version = ipaddress.ip_address(target).version
        source = source or (self.v4 if version == 4 else self.v6)
        mac = b"\x02vcvcv" if how == "mac" else self.mac
        body = _segment(protocol, source, target, port)
        number = 6 if protocol == "tcp" else 17
        pieces = [body] if how != "fragments" else [body[i : i + 8] for i in range(0, len(body), 8)]
        head = self.router + mac + struct.pack("!H", _ETH_V4 if version == 4 else _ETH_V6)
        frames = []
        for place, piece in enumerate(pieces):
            offset = place << (0 if version == 4 else 3)
            more = place < len(pieces) - 1
            ends = (source, target, number)
            if version == 4:
                packet = _v4(*ends, piece, offset | (0x2000 if more else 0))
            elif how == "fragments":
                fragment = struct.pack("!BBHI", number, 0, offset | more, 4711)
                packet = _v6(source, target, 44, fragment + piece)
            else:
                packet = _v6(*ends, piece)
            frames.append(head + packet)
        return frames


def _segment(protocol: str, source: str, target: str, port: int) -> bytes:
    ends = ipaddress.ip_address(source).packed + ipaddress.ip_address(target).packed
    if protocol == "tcp":
        body = struct.pack("!HHIIBBHHH", 40_000 + port % 1000, port, 1, 0, 0x50, 2, 1024, 0, 0)
        number, place = 6, 16
    else:
        body = struct.pack("!HHHH", 40_000 + port % 1000, port, 8 + 24, 0) + b"bypass" * 4
        number, place = 17, 6
    total = _checksum(ends + struct.pack("!HH", number, len(body)) + body)
    return body[:place] + struct.pack("!H", total) + body[place + 2 :]


def _v4(source: str, target: str, protocol: int, body: bytes, fragment: int) -> bytes:
    ends = socket.inet_aton(source) + socket.inet_aton(target)
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(body), 4711, fragment, 64, protocol, 0) + ends
    return head[:10] + struct.pack("!H", _checksum(head)) + head[12:] + body


def _v6(source: str, target: str, protocol: int, body: bytes) -> bytes:
    ends = ipaddress.ip_address(source).packed + ipaddress.ip_address(target).packed
    return struct.pack("!IHBB", 6 << 28, len(body), protocol, 64) + ends + body


def _checksum(data: bytes) -> int:
    data += b"\0" * (len(data) % 2)
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


if __name__ == "__main__":
    os.environ.pop("RES_OPTIONS", None)
    main(json.loads(sys.argv[1]))
