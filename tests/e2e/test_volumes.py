"""What containers write that lasts: named volumes, and disks over their roots."""

from __future__ import annotations

import json

import pytest

pytestmark = pytest.mark.only("qemu")


def test_a_volume_outlives_pods_and_is_shared(host, busybox):
    root = ["--rootfs", str(busybox)]
    host.vc("run", *root, "-v", "kept:/data", "--", "sh", "-c", "echo one > /data/file; chmod 600 /data/file")
    assert host.vc("run", *root, "-v", "kept:/data:ro", "--", "cat", "/data/file").stdout == b"one\n"
    done = host.vc("run", *root, "-v", "kept:/data:ro", "--", "touch", "/data/no", check=1)
    assert b"Read-only file system" in done.stderr
    (found,) = json.loads(host.vc("volume", "ls", "--json").stdout)
    assert found["name"] == "kept"
    assert json.loads(host.vc("volume", "inspect", "kept").stdout) == found
    host.vc("run", "-d", "--name", "p", *root, "-v", "kept:/data", "--", "sleep", "1000")
    done = host.vc("volume", "rm", "kept", check=125)
    assert b"containers have the volume kept; 'vc ps' shows them" in done.stderr
    host.vc("pod", "delete", "--force", "p")
    assert host.vc("volume", "rm", "kept").stdout == b"kept\n"
    assert b"no volume kept; there are: none" in host.vc("volume", "rm", "kept", check=125).stderr


def test_names_of_volumes_are_checked(host, busybox):
    host.vc("volume", "create", "mine")
    assert b"there is a volume mine already" in host.vc("volume", "create", "mine", check=125).stderr
    assert b"is no volume id" in host.vc("volume", "create", "../up", check=125).stderr
    host.vc("run", "--rootfs", str(busybox), "-v", f"{busybox}/etc:/mine", "--", "ls", "/mine/passwd")
    assert [one["name"] for one in json.loads(host.vc("volume", "ls", "--json").stdout)] == ["mine"]


def test_a_disk_takes_more_than_the_guest_has_memory_and_lasts_as_long_as_its_container(host, busybox):
    script = "cat /mark 2>/dev/null && exit 0; dd if=/dev/zero of=/big bs=1M count=400 2>/dev/null; echo mark > /mark"
    host.vc("run", "-d", "--name", "p", "--disk", "1g", "--rootfs", str(busybox), "sh", "-c", script)
    assert host.vc("wait", "p").stdout == b"0\n"
    host.vc("pod", "stop", "p")
    host.vc("pod", "start", "p")
    host.vc("wait", "p")
    assert host.vc("logs", "p").stdout == b"mark\n"
    disk = host.folder / "lasting/p/p.disk"
    assert disk.stat().st_size == 1 << 30
    assert 400 << 20 <= disk.stat().st_blocks * 512 < 600 << 20
    host.vc("pod", "delete", "p")
    assert not disk.exists()


def test_a_disk_that_cannot_be_is_told(host, busybox):
    done = host.vc("run", "--disk", "1k", "--rootfs", str(busybox), "--", "true", check=125)
    assert b"a disk of 1024 bytes cannot be made" in done.stderr
    done = host.vc("run", "--disk", "1g", "--read-only", "--rootfs", str(busybox), "--", "true", check=125)
    assert b"a disk is for what is written over a root" in done.stderr
