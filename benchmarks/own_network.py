"""A network namespace of the benchmark's own, with a server behind its uplink."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_CLONE_NEWNET = 0x40000000
_LIBC = ctypes.CDLL(None, use_errno=True)
SERVER, SOURCE = "198.51.100.1", 5002
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
# Each connection is one sample: its MiB in a second, from the first byte to the last.
_SERVER = f"""
import socket, sys, time
size = int(sys.argv[1])

def source(client):
    client.recv(1 << 16)
    began, chunk = time.monotonic(), bytes(1 << 20)
    client.sendall(b"HTTP/1.0 200 OK\\r\\n\\r\\n")
    for _ in range(size >> 20):
        client.sendall(chunk)
    client.shutdown(socket.SHUT_WR)
    client.recv(1)  # the other side has read everything
    return size / (time.monotonic() - began)

listening = socket.create_server(("", {SOURCE}))
print("ready", flush=True)
while True:
    with listening.accept()[0] as client:
        print(source(client) / (1 << 20), flush=True)
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
def server(keeper: int, size: int) -> Iterator[subprocess.Popen[str]]:
    """A server that sends `size` bytes for each connection, and prints a line about it."""
    words = [*_inside(keeper), sys.executable, "-c", _SERVER, str(size)]
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
