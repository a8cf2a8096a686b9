"""What pods reach in tests: two network namespaces, "the host" for the tests and "the outside" with
servers.

The outside has public, private and metadata addresses. Nothing leaves the two namespaces.
"""

from __future__ import annotations

import ctypes
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_MARK_PORT = 9  # discard
_CLONE_NEWNET = 0x40000000
_LIBC = ctypes.CDLL(None, use_errno=True)

HOST, HOST_V6 = "198.51.100.2", "2001:db8::2"
PUBLIC, PUBLIC_V6 = "198.51.100.1", "2001:db8::1"
PRIVATE = ("10.20.30.40", "172.16.5.6", "192.168.7.8", "100.64.1.2", "169.254.169.254")
PRIVATE_V6 = ("fd12::1", "64:ff9b::a14:1e28")
NAME = "good.test"
MTU = 1400
EVIL, EVIL_V6 = "198.51.100.20", "2001:db8::20"
BRIEF = "198.51.100.30"  # of brief.test and the names below deb.test

_HOST_LINKS = f"""
link set lo up
link add up0 mtu {MTU} type veth peer name up1 mtu {MTU} netns {{pid}}
addr add {HOST}/24 dev up0
addr add 2001:db8::2/64 dev up0 nodad
link set up0 up
route add default via {PUBLIC}
route add default via {PUBLIC_V6}
"""
_OUTSIDE_LINKS = "\n".join(
    [
        "link set lo up",
        f"addr add {PUBLIC}/24 dev up1",
        f"addr add {PUBLIC_V6}/64 dev up1 nodad",
        *(f"addr add {address}/24 dev up1" for address in (EVIL, BRIEF)),
        f"addr add {EVIL_V6}/64 dev up1 nodad",
        *(f"addr add {address}/32 dev lo" for address in PRIVATE),
        *(f"addr add {address}/128 dev lo nodad" for address in PRIVATE_V6),
        "link set up1 up",
        "",
    ]
)
_SERVERS = """
import http.server, socket, socketserver, sys, threading

class Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = b"o" * (1 << 19) if self.path == "/big" else b"outside"
        self.send_response(200); self.end_headers(); self.wfile.write(body)
    def log_message(self, *_): pass

class Echo(socketserver.BaseRequestHandler):
    def handle(self):
        data, sock = self.request; sock.sendto(b"echo " + data, self.client_address)

class Server(http.server.ThreadingHTTPServer):
    address_family = socket.AF_INET6

class Datagrams(socketserver.UDPServer):
    address_family = socket.AF_INET6

servers = [Datagrams(("::", port), Echo) for port in (443, 5000)]
servers += [Server(("::", port), Page) for port in (80, 443, 853)]
for server in servers:
    threading.Thread(target=server.serve_forever, daemon=True).start()
print("ready", flush=True)
threading.Event().wait()
"""


_SNIFFER = """
import socket, struct, sys

def name_of(query):
    labels, place = [], 12
    while place < len(query) and query[place]:
        labels.append(query[place + 1 : place + 1 + query[place]].decode("ascii", "replace"))
        place += 1 + query[place]
    return ".".join(labels).lower()

names = {6: "tcp", 17: "udp"}
wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
wire.bind(("up1", 3))
print("ready", flush=True)
sys.stdout = open(sys.argv[1], "w", buffering=1)
while True:
    frame, (_, _, direction, *_) = wire.recvfrom(1 << 17)
    kind, packet = frame[12:14], frame[14:]
    if direction == socket.PACKET_OUTGOING:
        continue
    if kind == b"\\x08\\x00":
        family, address, number = socket.AF_INET, packet[16:20], packet[9]
        body = packet[(packet[0] & 15) * 4 :]
    elif kind == b"\\x86\\xdd":
        family, address, number = socket.AF_INET6, packet[24:40], packet[6]
        body = packet[40:]
    else:
        continue
    is_message_of_hosts = number in (1, 58) and body[:1] not in (b"\\x08", b"\\x80")
    if is_message_of_hosts or address[:2] == b"\\xff\\x02":
        continue
    port = struct.unpack("!H", body[2:4])[0] if number in names else 0
    name = name_of(body[8:]) if number == 17 and port == 53 else ""
    print(socket.inet_ntop(family, address), names.get(number, number), port, name)
"""


@dataclass(frozen=True)
class Seen:
    """What has arrived in the outside: lines of a file that the sniffer writes."""

    file: Path

    def arrived(self) -> frozenset[tuple[str, str, int]]:
        """Returns addresses, protocols and ports, without those of the tests themselves."""
        return frozenset((words[0], words[1], int(words[2])) for words in self._lines())

    def asked(self) -> frozenset[str]:
        """Returns the names that were asked for."""
        return frozenset(words[3] for words in self._lines() if len(words) > 3)

    def _lines(self) -> list[list[str]]:
        """Returns what has arrived before this call, which sends a datagram after it."""
        mark = [PUBLIC, "udp", str(_MARK_PORT)]
        before = self._read().count(mark)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.sendto(b"mark", (PUBLIC, _MARK_PORT))
        end = time.monotonic() + 60
        while (lines := self._read()).count(mark) == before:
            assert time.monotonic() < end, "the sniffer does not see the mark"
            time.sleep(0.05)
        return [words for words in lines if words != mark]

    def _read(self) -> list[list[str]]:
        text = self.file.read_text() if self.file.exists() else ""
        return [line.split() for line in text.splitlines(keepends=True) if line.endswith("\n")]


def _ip(lines: str, *prefix: str) -> None:
    subprocess.run([*prefix, "ip", "-batch", "-"], input=lines, text=True, check=True)


@contextmanager
def outside(pages_on_host: bool = False, file: Path | None = None) -> Iterator[int]:
    """This thread and what it starts is in a namespace of its own, with an outside.

    Yields the process whose network namespace the outside is.

    Args:
        pages_on_host: whether "the host" has the same servers, on all of its addresses.
        file: where to write what arrives, for `Seen`; None for nowhere.
    """
    former = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    started: list[subprocess.Popen[str]] = []

    def start(*words: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        return process

    try:
        assert _LIBC.unshare(_CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())
        keeper = start("unshare", "--net", "sh", "-c", "echo ready; exec sleep infinity")
        _ip(_HOST_LINKS.format(pid=keeper.pid))
        there = ("nsenter", "--target", str(keeper.pid), "--net")
        _ip(_OUTSIDE_LINKS, *there)
        start(*there, sys.executable, "-c", _SERVERS)
        if file is not None:
            start(*there, sys.executable, "-c", _SNIFFER, str(file))
        if pages_on_host:
            start(sys.executable, "-c", _SERVERS)
        dns = ("dnsmasq", "--keep-in-foreground", "--no-resolv", "--no-hosts", "--user=root")
        names = {
            NAME: (PUBLIC, PUBLIC_V6),
            "evil.test": (EVIL, EVIL_V6),
            "brief.test": (BRIEF,),
            "deb.test": (BRIEF,),
            "rebound.test": (PRIVATE[0],),
            "rebound.deb.test": (PRIVATE[0],),
        }
        known = [f"--address=/{name}/{one}" for name, all_ in names.items() for one in all_]
        listen = (f"--listen-address={PUBLIC}", f"--listen-address={EVIL}", "--bind-interfaces")
        with subprocess.Popen([*there, *dns, *known, *listen]) as server:
            try:
                yield keeper.pid
            finally:
                server.kill()
    finally:
        for process in started:
            with process:
                process.kill()
        assert _LIBC.setns(former, _CLONE_NEWNET) == 0
        os.close(former)
