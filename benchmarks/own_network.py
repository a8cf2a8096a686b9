"""A network namespace of the benchmark's own, with a server behind its uplink."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_CLONE_NEWNET = 0x40000000
_LIBC = ctypes.CDLL(None, use_errno=True)
SERVER, SOURCE, SINK = "198.51.100.1", 5002, 5003
_MTU = 1500
_HERE = f"""
link set lo up
link add up0 mtu {_MTU} type veth peer name up1 mtu {_MTU} netns {{pid}}
link set up0 up
addr add 198.51.100.2/24 dev up0
route add default via {SERVER}
"""
_THERE = f"""
link set lo up
link set up1 up
addr add {SERVER}/24 dev up1
"""
# Each connection is one sample: its MiB in a second, from the first byte to the last, and the
# seconds of processor time that each watched process has used meanwhile. SOURCE sends
# `size` bytes by HTTP, SINK takes as many. No client shuts its side down first: with Debian's pasta
# (2023-03) such a connection stalls.
_SERVER = f"""
import os, selectors, socket, sys, time
size, watched = int(sys.argv[1]), sys.argv[2]
ticks = os.sysconf("SC_CLK_TCK")

def used():
    found = []
    for pid in open(watched).read().split():
        fields = open(f"/proc/{{pid}}/stat").read().rpartition(")")[2].split()
        found.append((int(fields[11]) + int(fields[12])) / ticks)
    return found

def source(client):
    client.recv(1 << 16)
    began, chunk = time.monotonic(), bytes(1 << 20)
    client.sendall(b"HTTP/1.0 200 OK\\r\\n\\r\\n")
    for _ in range(size >> 20):
        client.sendall(chunk)
    client.shutdown(socket.SHUT_WR)
    client.recv(1)  # the other side has read everything
    return size / (time.monotonic() - began)

def sink(client):
    head = b""
    while b"\\r\\n\\r\\n" not in head:
        head += client.recv(1 << 16)
    began, room = time.monotonic(), bytearray(1 << 20)
    left = size - len(head.partition(b"\\r\\n\\r\\n")[2])
    while left > 0:
        part = client.recv_into(room)
        if not part:
            raise SystemExit("the sender ended early")
        left -= part
    took = time.monotonic() - began
    client.sendall(b"HTTP/1.0 200 OK\\r\\n\\r\\n")
    return size / took

selector = selectors.DefaultSelector()
for port, serve in (({SOURCE}, source), ({SINK}, sink)):
    selector.register(socket.create_server(("", port)), selectors.EVENT_READ, serve)
print("ready", flush=True)
while True:
    for key, _ in selector.select():
        with key.fileobj.accept()[0] as client:
            before = used()
            rate = key.data(client) / (1 << 20)
            print(rate, *(now - then for now, then in zip(used(), before)), flush=True)
"""


@contextmanager
def own_network() -> Iterator[int]:
    """As root, this thread and what it starts is in a network namespace of its own.

    Yields the pid of a process of the namespace behind the uplink, where nothing listens.
    """
    former = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        if _LIBC.unshare(_CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), "unshare")
        words = ["unshare", "--net", "sh", "-c", "echo ready; exec sleep infinity"]
        with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as keeper:
            try:
                _expect_ready(keeper)
                _ip(_HERE.format(pid=keeper.pid))
                _ip(_THERE, *_inside(keeper.pid))
                yield keeper.pid
            finally:
                keeper.kill()
    finally:
        _LIBC.setns(former, _CLONE_NEWNET)
        os.close(former)


@contextmanager
def server(keeper: int, size: int, watched: Path) -> Iterator[subprocess.Popen[str]]:
    """A server that sends or takes `size` bytes for each connection, and prints a line about it.

    Args:
        keeper: process of the namespace behind the uplink.
        size: in bytes.
        watched: file with the pids of the processes whose processor time is told.
    """
    words = [*_inside(keeper), sys.executable, "-c", _SERVER, str(size), str(watched)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        try:
            _expect_ready(process)
            yield process
        finally:
            process.kill()


def _inside(pid: int) -> tuple[str, ...]:
    return ("nsenter", "--target", str(pid), "--net")


def _expect_ready(process: subprocess.Popen[str]) -> None:
    if process.stdout is None or process.stdout.readline() != "ready\n":
        raise RuntimeError("a helper of the benchmark does not start")


def _ip(lines: str, *prefix: str) -> None:
    subprocess.run([*prefix, "ip", "-batch", "-"], input=lines, text=True, check=True)
