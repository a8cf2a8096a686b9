"""A tap in a network namespace of its own, for tests of hypervisor plugins."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from vc_core.spec import Nic

_TUN = Path("/dev/net/tun")
_NAME = "tap0"
# Creates the tap, passes its descriptor on, and keeps the namespace until its input ends.
_CHILD = f"""
import fcntl, os, socket, struct
tap = os.open("{_TUN}", os.O_RDWR)
fcntl.ioctl(tap, 0x400454CA, struct.pack("16sH22x", b"{_NAME}", 0x0002 | 0x1000 | 0x4000))
caller = socket.socket(fileno=0)
socket.send_fds(caller, [b"tap"], [tap])
os.close(tap)
caller.send(b".")
caller.recv(1)
"""


@dataclass
class Tap:
    """A tap.

    Attributes:
        descriptor: open in this process until `close`.
        keeper: pid of the process in its namespace.
    """

    descriptor: int
    keeper: int

    def nic(self) -> Nic:
        """Returns an interface on it."""
        return Nic(id="nic0", mac="02:00:00:00:00:02", mtu=1500, descriptor=self.descriptor)

    def close(self) -> None:
        """Closes the descriptor of this process. May be called twice."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1

    def exists(self) -> bool:
        """Returns whether it is open in any process: it vanishes with its last descriptor."""
        return f"{_NAME}:" in Path(f"/proc/{self.keeper}/net/dev").read_text()


@contextmanager
def tap() -> Iterator[Tap]:
    """Provides a tap for the length of a block; skips the test where there can be none."""
    if not os.access(_TUN, os.R_OK | os.W_OK):
        pytest.skip(f"{_TUN} cannot be opened")
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    command = ["unshare", "--user", "--map-root-user", "--net", sys.executable, "-I", "-c", _CHILD]
    with ours:
        with theirs:
            child = subprocess.Popen(command, stdin=theirs.fileno())
        try:
            _, descriptors, _, _ = socket.recv_fds(ours, 3, 1)
            assert descriptors, "no tap can be made in a new network namespace"
            found = Tap(descriptors[0], child.pid)
            ours.recv(1)  # it is open in this process only
            try:
                yield found
            finally:
                found.close()
        finally:
            ours.close()
            child.wait()
