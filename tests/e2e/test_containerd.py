"""containerd, by its own command ctr, with vc-runtime as its runtime."""

from __future__ import annotations

import os
import platform

import pytest

from tests.e2e import engines

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
