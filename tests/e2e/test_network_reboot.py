"""A reboot of the host while a pod has pasta's network."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
from vc_network import namespace

from tests.e2e.conftest import processes
from tests.e2e.outside import NAME, PUBLIC, outside
from tests.e2e.test_networks import WEB, _page
from vc_core.driver_kit import HostProcess

pytestmark = [
    pytest.mark.needs("nic"),
    pytest.mark.skipif(os.geteuid() != 0, reason="only root makes network namespaces for a test"),
]


@pytest.fixture(autouse=True)
def _outside():
    with outside():
        yield


def _of_pods(host) -> list[HostProcess]:
    """Processes of the host's pods: machines, pasta, and filters of names."""
    found = []
    for pid, words in processes():
        if str(host.folder) in " ".join(words) and pid != os.getpid():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has ended
                found.append(HostProcess.of(pid))
    return found


def _wait_for_ends(left: list[HostProcess]) -> None:
    """The filter of names is two processes: the second one ends after the first one."""
    for process in left:
        assert asyncio.run(process.ended_within(60)), process


@pytest.mark.parametrize("ending", ["start", "delete"])
def test_a_pod_outlives_a_reboot_with_its_ports_and_its_policy(host, ending):
    words = ("--network", "public", "--allow", f"{NAME}:443", "--dns", PUBLIC, "-p", "8080:80")
    host.vc("run", "-d", "--name", "p", *words, "--", "sh", "-c", WEB)
    assert _page("http://127.0.0.1:8080/name") == "p"
    keeper = namespace.keeper_of(host.folder / "run/pods/p")
    assert keeper is not None
    for process in (*_of_pods(host), keeper):
        os.kill(process.pid, signal.SIGKILL)
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    for point in [line.split()[4] for line in reversed(mounts)]:
        if point.startswith(f"{host.folder}/run/"):
            subprocess.run(["umount", "--lazy", point], check=True)
    shutil.rmtree(host.folder / "run")
    assert b"p: stopped" in host.vc("pod", "status", "p").stdout
    if ending == "start":
        host.vc("pod", "start", "p")
        told = host.vc("pod", "status", "p").stdout.decode()
        assert "port: 127.0.0.1:8080->80/tcp" in told
        assert "does not work" not in told
        assert _page("http://127.0.0.1:8080/name") == "p"
        get = ("curl", "-s", "-m", "20", f"http://{NAME}/")
        assert host.vc("exec", "p", "--", *get, check=None).stdout == b"", "port 80 is not allowed"
        refused = host.vc("network", "log", "p").stdout.decode()
        assert f"{PUBLIC}" in refused
    host.vc("pod", "delete", "--force", "p")
    _wait_for_ends(_of_pods(host))
    assert _of_pods(host) == []
    host.vc("run", *words, "--", "true")
