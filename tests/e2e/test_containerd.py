"""containerd, by its own command ctr, with vc-runtime as its runtime."""

from __future__ import annotations

import json
import os
import platform
import signal
import subprocess
from pathlib import Path

import pytest

from tests.e2e import engines
from vc_core.driver_kit import HostProcess

pytestmark = [
    pytest.mark.only("qemu"),
    pytest.mark.timeout(900),
    pytest.mark.skipif(os.geteuid() != 0, reason="only root runs containerd"),
]
IMAGE = "docker.io/library/busybox:1"


@pytest.fixture
def ctr(host, busybox):
    """Types commands of ctr."""
    with engines.podman(host, busybox) as podman:
        podman("tag", engines.IMAGE, IMAGE)
        archive = host.folder / "image.tar"
        podman("save", "--output", str(archive), IMAGE)
    with engines.containerd(host, archive) as words:

        def typed(*more, **options):
            return engines.run(*words, *more, **options)

        typed.words = words
        yield typed


def test_a_container_lives_under_containerd(ctr, host):
    how = ("--runtime", "io.containerd.runc.v2", "--runc-binary", host.folder / "vc-runtime")
    new = ("run", "--snapshotter", "native", *how)
    told = ctr(*new, "--rm", IMAGE, "first", "uname", "-r").stdout.decode().strip()
    assert told != platform.release()
    script = "echo kept >/dev/shm/x; sleep 1000"
    ctr(*new, "--detach", IMAGE, "second", "sh", "-c", script)
    execute = ("task", "exec", "--exec-id", "e1", "second", "sh", "-c")
    assert ctr(*execute, "cat /dev/shm/x; exit 8", check=8).stdout == b"kept\n"
    ctr("task", "pause", "second")
    assert b"PAUSED" in ctr("task", "ls").stdout
    ctr("task", "resume", "second")
    assert b"memory.usage_in_bytes" in ctr("task", "metrics", "second").stdout
    assert len(host.machines()) == 1
    ctr("task", "kill", "--signal", "15", "second")
    engines.wait_until(lambda: b"STOPPED" in ctr("task", "ls").stdout)
    assert b"exit code 143" in ctr("task", "delete", "second").stderr
    ctr("container", "rm", "second")
    assert host.machines() == []


def test_memory_that_was_short_for_an_exec_is_an_event(ctr, host):
    how = ("--runtime", "io.containerd.runc.v2", "--runc-binary", host.folder / "vc-runtime")
    limited = ("--memory-limit", str(64 << 20), "--detach", IMAGE, "c", "sleep", "1000")
    ctr("run", "--snapshotter", "native", *how, *limited)
    with subprocess.Popen([*ctr.words, "events"], stdout=subprocess.PIPE) as events:
        hog = ("dd", "if=/dev/zero", "of=/dev/null", "bs=200M", "count=1")
        ctr("task", "exec", "--exec-id", "e1", "c", *hog, check=128 + signal.SIGKILL)
        told = ""
        while " /tasks/oom " not in told:
            told = events.stdout.readline().decode()
            assert told, "containerd has ended"
        assert '"container_id":"c"' in told
        events.kill()
    assert b"RUNNING" in ctr("task", "ls").stdout
    ctr("task", "kill", "--signal", "9", "c")
    engines.wait_until(lambda: b"STOPPED" in ctr("task", "ls").stdout)
    assert b"exit code 137" in ctr("task", "delete", "c", check=None).stderr
    ctr("container", "rm", "c")


@pytest.mark.parametrize("victim", ["stand-in", "machine", "shim"])
def test_a_killed_process_leaves_nothing(ctr, host, victim):
    how = ("--runtime", "io.containerd.runc.v2", "--runc-binary", host.folder / "vc-runtime")
    new = ("run", "--snapshotter", "native", *how)
    ctr(*new, "--detach", IMAGE, "c", "sleep", "1000")
    folder = Path("/run/containerd/runc/default/c")
    record = json.loads((folder / "container.json").read_text())
    groups = engines.groups(folder)
    assert groups != []
    (machine,) = host.machines()
    shim = int((Path(f"/proc/{record['pid']}/status").read_text().split("PPid:")[1]).split()[0])
    pids = {"stand-in": record["pid"], "machine": machine, "shim": shim}
    os.kill(pids[victim], signal.SIGKILL)
    if victim == "shim":
        engines.wait_until(
            lambda: b"RUNNING" not in ctr("task", "ls").stdout, "the end of the task"
        )
        # containerd has it deleted, and kills that after 5 s, which is too short here.
        engines.run(host.folder / "vc-runtime", "--root", folder.parent, "delete", "--force", "c")
        # Its own call may still run: the container can be removed when the task is gone.
        engines.wait_until(
            lambda: ctr("task", "ls", "--quiet").stdout.split() == [], "containerd's clean-up"
        )
    else:
        engines.wait_until(lambda: b"STOPPED" in ctr("task", "ls").stdout, "the end of the task")
        assert b"exit code 137" in ctr("task", "delete", "c", check=None).stderr
    ctr("container", "rm", "c")
    assert not HostProcess(record["pid"], record["start_ticks"]).is_alive()
    engines.wait_until(lambda: host.machines() == [], "the end of the machine")
    assert not folder.exists()
    assert [group for group in groups if group.exists()] == []
    assert ctr(*new, "--rm", IMAGE, "c", "echo", "again").stdout == b"again\n"
