"""A network of the tests' own: a network namespace with an uplink to another one, "the outside"."""

from __future__ import annotations

import ctypes
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

_CLONE_NEWNET = 0x40000000
_LIBC = ctypes.CDLL(None, use_errno=True)
_LINKS = """
link set lo up
link add up0 type veth peer name up1
link set up1 up
link set up0 up
addr add 198.51.100.2/24 dev up0
addr add 2001:db8::2/64 dev up0 nodad
route add default via 198.51.100.1
route add default via 2001:db8::1
"""


@pytest.fixture
def own_network() -> Iterator[None]:
    """This thread, and what it starts, is in a network namespace of its own that has default
    routes.
    """
    if os.geteuid() != 0:
        pytest.skip("only root makes a network namespace for a test")
    former = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        assert _LIBC.unshare(_CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())
        try:
            subprocess.run(["ip", "-batch", "-"], input=_LINKS, text=True, check=True)
            yield
        finally:
            assert _LIBC.setns(former, _CLONE_NEWNET) == 0
    finally:
        os.close(former)


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    """The run folder of a pod."""
    folder = tmp_path / "pod"
    folder.mkdir(mode=0o700)
    return folder
