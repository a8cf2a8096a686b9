"""A third party's hypervisor, which has no machines: what users do with a pod is the same."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.only("acme")

GROUPS = Path("/sys/fs/cgroup")


@pytest.fixture(autouse=True)
def _no_group_is_left():
    """Of control groups: of the others the host sees to."""
    before = set(GROUPS.rglob("vc-*"))
    yield
    assert set(GROUPS.rglob("vc-*")) - before == set()


def test_a_command_runs_on_the_hosts_kernel_with_a_root_of_its_own(host):
    done = host.vc(
        "run",
        "--rootfs",
        "/",
        "--",
        "sh",
        "-c",
        "uname -r; id -u; touch /new; hostname",
        stdin=b"x",
    )
    kernel, uid, name = done.stdout.decode().split()
    assert (kernel, uid) == (os.uname().release, "0")
    assert name != os.uname().nodename
    assert not Path("/new").exists()
    host.vc("run", "--", "sh", "-c", "exit 7", check=7)
    host.vc("run", "--", "missing", check=127)


def test_streams_and_signals_are_the_commands(host):
    assert host.vc("run", "--", "cat", stdin=b"through").stdout == b"through"
    with host.start(
        "run", "--", "sh", "-c", "echo up; exec sleep 99", stdout=subprocess.PIPE
    ) as running:
        assert running.stdout.readline() == b"up\n"
        running.terminate()
        assert running.wait(30) == 143


def test_a_container_sees_no_process_network_or_device_of_the_host(host):
    script = "ps -e | wc -l; ls /sys/class/net; mknod /x b 254 0 2>&1; cat /dev/vda 2>&1; true"
    told = host.vc("run", "--", "sh", "-c", script)
    lines = told.stdout.decode().split("\n")
    assert int(lines[0]) < 8, "it sees processes that are none of its own"
    assert lines[1] == "lo"
    assert "bytes" not in told.stdout.decode()
    assert b"mknod" in told.stdout, "it could make a device of the host's"


def test_a_folder_that_is_mounted_later_is_seen(host, busybox, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data/word").write_text("of the host")
    host.vc("run", "-d", "--name", "p", "--rootfs", str(busybox), "--", "sleep", "99")
    words = ["container", "create", "--name", "later", "--rootfs", str(busybox), "--stdin"]
    host.vc("pod", "pause", "p")
    assert json.loads(host.vc("pod", "status", "p", "--json").stdout)["state"] == "paused"
    host.vc("pod", "resume", "p")
    mount = f"{tmp_path}/data:/data:ro"
    host.vc(
        *words[:-1], "--mount", mount, "p", "--", "sh", "-c", "cat /data/word > /told; sleep 99"
    )
    host.vc("container", "start", "p", "later")
    assert (
        host.vc("exec", "--container", "later", "p", "--", "cat", "/data/word").stdout
        == b"of the host"
    )
    host.vc("exec", "--container", "later", "p", "--", "touch", "/data/new", check=1)
    host.vc("pod", "delete", "--force", "p")


def test_a_sandbox_that_was_killed_is_told_and_cleared(host):
    host.vc("run", "-d", "--name", "p", "--", "sleep", "99")
    for pid in host.machines():
        os.kill(pid, 9)
    found = json.loads(host.vc("pod", "status", "p", "--json").stdout)
    assert found["state"] == "stopped"
    host.vc("pod", "delete", "p")


def test_what_it_cannot_do_is_refused_by_name(host, tmp_path):
    (tmp_path / "image").write_bytes(bytes(1 << 20))
    done = host.vc("run", "--device", f"{tmp_path}/image:/dev/x", "--", "true", check=125)
    assert b"cannot plug disks" in done.stderr
    assert done.stderr.count(b"\n") == 1
    host.vc("run", "-d", "--name", "p", "--", "sleep", "99")
    assert b"cannot save a machine" in host.vc("pod", "snapshot", "p", "s", check=125).stderr
    host.vc("pod", "delete", "--force", "p")
