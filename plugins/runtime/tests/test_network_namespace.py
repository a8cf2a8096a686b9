"""In which network namespace a stand-in is, and what is in it."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from vc_runtime import network_namespace
from vc_runtime.errors import RuntimeFailure
from vc_runtime.network_namespace import _namespace, in_network_of, is_connected, network_of

NETWORK = {"namespaces": [{"type": "pid"}, {"type": "network"}]}
_VETH = "ip link add d0 type veth peer d1; ip link set d1 up"
HOOKS = {"prestart": [{"path": "/bin/true"}]}


@pytest.mark.parametrize(
    ("document", "path"),
    [
        ({"hooks": HOOKS, "linux": NETWORK}, ""),
        (
            {"hooks": HOOKS, "linux": {"namespaces": [{"type": "network", "path": "/n"}]}},
            "/n",
        ),
        ({"hooks": {"createContainer": [{}]}, "linux": NETWORK}, ""),
        ({"hooks": {"poststop": [{}], "prestart": []}, "linux": NETWORK}, ""),
        ({"hooks": None, "linux": NETWORK}, ""),
        ({"linux": NETWORK}, ""),
        ({"linux": {"namespaces": [{"type": "network", "path": "/n"}]}}, None),
        ({"hooks": HOOKS, "linux": {"namespaces": [{"type": "pid"}]}}, None),
        ({"hooks": HOOKS}, None),
        ({"hooks": [1], "linux": NETWORK}, ""),
        ({"hooks": HOOKS, "linux": {"namespaces": [1]}}, None),
        ([], None),
    ],
)
def test_a_namespace_is_entered_when_somebody_may_look_for_it(tmp_path, document, path):
    (tmp_path / "config.json").write_text(json.dumps(document))
    assert _namespace(tmp_path) == path


def test_a_config_that_is_wrong_is_left_to_who_reads_it_next(tmp_path):
    assert in_network_of(tmp_path, lambda: ["done"]) == ["done"]
    (tmp_path / "config.json").write_text("{")
    assert in_network_of(tmp_path, lambda: ["done"]) == ["done"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes a network namespace for a test")
def test_the_work_is_done_in_the_callers_namespace_and_its_errors_are_told(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"hooks": HOOKS, "linux": NETWORK}))
    # Of a child: the first thread does not come back.
    script = """
import os, pathlib, sys
from vc_runtime import network_namespace
from vc_runtime.errors import RuntimeFailure
from vc_runtime.network_namespace import in_network_of

folder = pathlib.Path(sys.argv[1])
before = os.readlink("/proc/thread-self/ns/net")

def work():
    return [str(os.readlink("/proc/thread-self/ns/net") == before)]

def fail():
    raise RuntimeError("told")

print(in_network_of(folder, work), os.readlink("/proc/self/ns/net") == before)
try:
    in_network_of(folder, fail)
except RuntimeError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], capture_output=True, check=True
    )
    assert done.stdout == b"['True'] False\ntold\n"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes a network namespace for a test")
@pytest.mark.parametrize(
    ("commands", "expected"),
    [
        ("ip link set lo up", False),
        (_VETH, False),  # down, as the tunnels that the kernel makes itself
        (f"{_VETH}; ip addr add 192.0.2.1/24 dev d0; ip link set d0 up", True),
    ],
)
def test_an_interface_that_works_is_a_connection(commands, expected):
    before = Path("/proc/thread-self/ns/net").readlink()
    script = f"{commands}; echo ready; exec cat"
    with subprocess.Popen(
        ["unshare", "--net", "sh", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout.readline() == b"ready\n"
        own = f"/proc/{process.pid}/ns/net"
        assert is_connected(own) is expected
        # A new namespace is that of the process; one with a path is the pod's in any case.
        found = (f"ns:{own}", "") if expected else ("none", own)
        assert network_of("none", process.pid) == found
        found = (f"ns:{own}", "") if expected else (f"ns:{own}", own)
        assert network_of(f"ns:{own}", 1) == found
        process.stdin.close()
    assert Path("/proc/thread-self/ns/net").readlink() == before


def test_the_own_namespace_and_one_that_is_gone_are_no_connection(tmp_path):
    own = f"/proc/{os.getpid()}/ns/net"
    assert network_of("none", os.getpid()) == ("none", own)
    assert not is_connected(own)
    assert not is_connected(str(tmp_path / "gone"))


@pytest.mark.skipif(os.geteuid() != 0, reason="an ordinary user's own namespace is the caller's")
def test_root_without_a_namespace_creates_nothing(tmp_path, monkeypatch):
    (tmp_path / "config.json").write_text(json.dumps({"linux": NETWORK}))

    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(network_namespace, "_enter", full)
    with pytest.raises(RuntimeFailure, match="show the host's: No space left"):
        in_network_of(tmp_path, lambda: pytest.fail("it must not be called"))
