"""What containers write that lasts: named volumes, and disks over their roots."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.images.layouts import Layout, busybox_layers, entry, layer

pytestmark = pytest.mark.only("qemu")


def test_a_volume_outlives_pods_and_is_shared(host, busybox):
    root = ["--rootfs", str(busybox)]
    host.vc(
        "run",
        *root,
        "-v",
        "kept:/data",
        "--",
        "sh",
        "-c",
        "echo one > /data/file; chmod 600 /data/file",
    )
    assert (
        host.vc("run", *root, "-v", "kept:/data:ro", "--", "cat", "/data/file").stdout == b"one\n"
    )
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


def test_a_new_volume_gets_what_the_image_has_there(host, tmp_path):
    made = Layout(tmp_path / "layout")
    data = [
        entry("data", "d", uid=1234, gid=5678, mode=0o750),
        entry("data/kept", data=b"kept", uid=70_000, gid=80_000, mode=0o2640),
        entry("data/link", "l", link="/etc/passwd", uid=1234),
        entry("data/deep", "d", mode=0o711),
        entry("data/deep/null", "c", devmajor=1, devminor=3, mode=0o666),
        entry("data/deep/file", data=b"deep", mode=0o4755),
        entry("other", "d", uid=1234, mode=0o700),
        entry("far", "d", uid=1234),
        entry("ends", "l", link="/far"),
    ]
    first, _ = busybox_layers(Path(shutil.which("busybox") or "").read_bytes())
    made.image("v1", [first, layer(*data)], {"User": "1234:5678", "Env": ["PATH=/bin"]})
    host.vc("image", "import", str(made.folder), "app")
    look = (
        "cd /data; stat -c '%n %u:%g %a %F' . kept link deep deep/file; "
        "touch mine && echo written; rm -r kept"
    )
    run = [
        "run",
        "--name",
        "p",
        "--keep",
        "-v",
        "new:/data",
        "-v",
        "second:/other",
        "-v",
        "linked:/ends",
    ]
    told = host.vc(
        *run, "-v", "empty:/data/deep/none", "app", "sh", "-c", f"{look}; touch /other/x /ends/y"
    )
    assert told.stdout.decode().splitlines() == [
        ". 1234:5678 750 directory",
        "kept 70000:80000 2640 regular file",
        "link 1234:0 777 symbolic link",
        "deep 0:0 711 directory",
        "deep/file 0:0 4755 regular file",
        "written",
    ]
    volumes = {
        one["name"]: Path(one["path"])
        for one in json.loads(host.vc("volume", "ls", "--json").stdout)
    }
    assert (volumes["linked"] / "y").exists()
    assert list(volumes["empty"].iterdir()) == []
    for path in volumes["new"].iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    host.vc("pod", "start", "p")  # makes the container again
    host.vc("wait", "p")
    host.vc("pod", "delete", "p")
    assert {path.name for path in volumes["new"].iterdir()} <= {"mine", "deep"}, (
        "what was removed came back"
    )
    root = ["run", "--user", "0", "app", "ls"]
    assert host.vc(*root[:3], "-v", "bare:/data:nocopy", *root[3:], "/data").stdout == b""
    assert host.vc(*root[:3], "-v", "read:/data:ro", *root[3:], "/data").stdout == b""


def test_names_of_volumes_are_checked(host, busybox):
    host.vc("volume", "create", "mine")
    assert (
        b"there is a volume mine already" in host.vc("volume", "create", "mine", check=125).stderr
    )
    assert b"is no volume id" in host.vc("volume", "create", "../up", check=125).stderr
    host.vc(
        "run", "--rootfs", str(busybox), "-v", f"{busybox}/etc:/mine", "--", "ls", "/mine/passwd"
    )
    assert [one["name"] for one in json.loads(host.vc("volume", "ls", "--json").stdout)] == ["mine"]


def test_a_disk_takes_more_than_the_guest_has_memory_and_lasts_as_long_as_its_container(
    host, busybox
):
    script = (
        "cat /mark 2>/dev/null && exit 0; dd if=/dev/zero of=/big bs=1M count=400 2>/dev/null; "
        "echo mark > /mark"
    )
    host.vc(
        "run", "-d", "--name", "p", "--disk", "1g", "--rootfs", str(busybox), "sh", "-c", script
    )
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
    done = host.vc(
        "run", "--disk", "1g", "--read-only", "--rootfs", str(busybox), "--", "true", check=125
    )
    assert b"a disk needs a root file system without :rw and :ro" in done.stderr
