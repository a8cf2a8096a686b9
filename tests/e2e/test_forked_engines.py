"""Pods that podman has started, forked and saved by vc."""

from __future__ import annotations

import json
import os
import subprocess

import pytest

from tests.e2e import engines
from tests.e2e.engines import IMAGE
from tests.e2e.outside import outside

pytestmark = [
    pytest.mark.only("qemu"),
    pytest.mark.timeout(900),
    pytest.mark.skipif(os.geteuid() != 0, reason="podman's rootless mode is not set up here"),
]

COUNTS = (
    "n=0; while true; do n=$((n+1)); echo $n > /dev/shm/m; mv /dev/shm/m /dev/shm/n; "
    "echo more; sleep 0.1; done"
)


@pytest.fixture
def podman(host, busybox):
    with engines.podman(host, busybox) as found:
        yield found


def _counts(host, pod: str) -> bool:
    """Whether the first process of a pod still runs, with all that it has in memory."""
    script = "n=$(cat /dev/shm/n); while [ $(cat /dev/shm/n) = $n ]; do :; done; echo $n"
    return int(host.vc("exec", pod, "--", "sh", "-c", script).stdout) > 0


def test_a_pod_of_podman_is_forked_saved_and_restored(podman, host):
    podman("run", "-d", "--name", "web", "--network", "none", IMAGE, "sh", "-c", COUNTS)
    pod = podman.record("web")["pod"]
    children = host.vc("pod", "fork", pod, "-n", "2").stdout.decode().split()
    assert len(children) == 2
    host.vc("pod", "snapshot", pod, "saved")
    restored = host.vc("pod", "restore", "saved").stdout.decode().strip()
    for one in (pod, *children, restored):
        assert _counts(host, one), one
    # The process that holds the parent's does not hold those of the copies.
    podman("kill", "web")
    for one in (*children, restored):
        assert _counts(host, one), one
        host.vc("pod", "delete", "--force", one)
    podman("rm", "--force", "web")
    assert host.machines() == []


def test_copies_of_a_pod_with_a_network_of_podman_get_networks_of_their_own(podman, host):
    with outside():
        serve = "echo page > /tmp/page; exec httpd -f -p 80 -h /tmp"
        podman("run", "-d", "--name", "web", "-p", "8080:80", IMAGE, "sh", "-c", serve)
        pod = podman.record("web")["pod"]
        refused = host.vc("pod", "fork", pod, check=125).stderr.decode()
        assert "no other pod can use; give the new pod a network: --network public" in refused
        refused = host.vc("pod", "fork", pod, "--network", "none", check=125).stderr.decode()
        assert "has a network interface" in refused
        get = (
            "curl",
            "-s",
            "-m",
            "20",
            "--retry",
            "30",
            "--retry-all-errors",
            "--retry-delay",
            "1",
        )
        words = ("pod", "fork", pod, "-n", "2", "--network", "full", "-p", "80")
        children = host.vc(*words).stdout.decode().split()
        for child in children:
            (port,) = json.loads(host.vc("pod", "status", "--json", child).stdout)["ports"]
            url = f"http://127.0.0.1:{port['host_port']}/page"
            assert subprocess.run([*get, url], capture_output=True, check=True).stdout == b"page\n"
            host.vc("pod", "delete", "--force", child)
        own = [*podman.entering, *get, "http://127.0.0.1:8080/page"]
        assert subprocess.run(own, capture_output=True, check=True).stdout == b"page\n"
