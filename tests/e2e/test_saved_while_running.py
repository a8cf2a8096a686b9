"""A pod is saved while it runs: what its programs change meanwhile is whole in its children."""

from __future__ import annotations

import json

from tests.e2e.conftest import Host

MEMORY = """
import mmap, os, sys
pages = mmap.mmap(-1, 8 << 20)
number = 0
while True:
    number += 1
    for at in range(0, len(pages), 4096):
        found = int.from_bytes(pages[at : at + 8], "big")
        if found != number - 1:
            open("/tmp/torn", "w").write(f"{at}: {found}, not {number - 1}")
            sys.exit(1)
        pages[at : at + 8] = number.to_bytes(8, "big")
    open("/tmp/half", "w").write(str(number))
    os.rename("/tmp/half", "/tmp/count")
"""


def _told(host: Host, pod: str, script: str) -> str:
    return host.vc("exec", "-c", "c", pod, "--", "sh", "-c", script).stdout.decode()


def _count(host: Host, pod: str) -> int:
    return int(_told(host, pod, "until [ -s /tmp/count ]; do :; done; cat /tmp/count"))


def test_memory_that_changes_while_it_is_saved_is_whole_in_the_child(host):
    host.vc("pod", "create", "p")
    host.vc(
        *("container", "create", "--name", "c", "--rootfs", "/", "p"),
        *("--", "python3", "-c", MEMORY),
    )
    host.vc("pod", "start", "p")
    try:
        _count(host, "p")
        forked = host.vc("pod", "fork", "p", "-n", "2", "--json")
        told = json.loads(forked.stdout)
        assert 0 < told["stood_still_s"] < told["detached_s"]
        for pod in ("p", *told["pods"]):
            first = _count(host, pod)
            script = f"until [ -e /tmp/torn ] || [ $(cat /tmp/count) -gt {first + 1} ]; do :; done"
            assert _told(host, pod, f"{script}; cat /tmp/torn 2>/dev/null; echo on") == "on\n", pod
        assert host.vc("pod", "fork", "p").stderr.decode().startswith("p stood still ")
    finally:
        for pod in json.loads(host.vc("pod", "ls", "--json").stdout):
            host.vc("pod", "delete", "--force", pod["id"])
