"""Root file systems that lie on block devices and in images: the guest mounts them by itself."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from vc_core import ContainerSpec, ProcessSpec, Rootfs, RootfsMode


def _root(told: bytes) -> str:
    """The line of mount(8) on what is mounted at /."""
    return next(line for line in told.decode().splitlines() if " on / " in line)


def _blocks(host, pod="p"):
    found = json.loads(host.vc("pod", "status", pod, "--json").stdout)
    return {one["id"]: one["block"] for one in found["containers"]}


def test_a_rootfs_on_a_loop_device_is_a_drive_of_the_guest(host, ext4, mounted):
    device, point = mounted(ext4)
    (point / "rootfs/etc/late").write_text("written just before")
    host.vc("pod", "create", "p")
    host.vc(
        "container",
        "create",
        "--name",
        "a",
        "--rootfs",
        str(point / "rootfs"),
        "p",
        "--",
        "sleep",
        "99",
    )
    host.vc("pod", "start", "p")
    assert _blocks(host)["a"] == {"device": str(device), "fstype": "ext4", "address": "0:0"}
    assert b"rootfs: " + str(device).encode() in host.vc("container", "status", "p", "a").stdout
    told = host.vc(
        "exec",
        "p",
        "--",
        "sh",
        "-c",
        "mount; cat /etc/late; ls /lost+found 2>&1; touch /x && ls /x",
    )
    assert "lowerdir=/run/vc/drives/" in _root(told.stdout)
    assert b"written just before" in told.stdout
    assert not (point / "rootfs/x").exists()
    assert not any("9p" in line for line in told.stdout.decode().splitlines()), (
        "no folder is shared for it"
    )
    host.vc("pod", "delete", "p")


@pytest.mark.only("qemu")
def test_the_same_drive_serves_several_containers_and_its_place_is_given_back(host, ext4, busybox):
    host.vc("pod", "create", "p")
    host.vc("pod", "start", "p")
    for _ in range(2):
        for name in ("a", "b"):
            image = f"{ext4.parent}/{ext4.name}"
            host.vc(
                "container", "create", "--name", name, "--rootfs", image, "p", "--", "sleep", "99"
            )
            host.vc("container", "start", "p", name)
        assert {block["address"] for block in _blocks(host).values()} == {"0:0"}
        for name in ("a", "b"):
            host.vc("container", "delete", "--force", "p", name)
    state = json.loads((host.folder / "run/pods/p/state.json").read_text())["data"]
    assert state["devices"] == []
    host.vc("pod", "delete", "p")


@pytest.mark.only("qemu")
def test_a_device_that_nobody_has_mounted_is_written_by_the_guest(host, ext4, loop, tmp_path):
    device = loop(ext4)
    told = host.vc("run", "--rootfs", f"{device}:rw", "--", "sh", "-c", "echo new > /new; mount")
    assert " type ext4 (rw" in _root(told.stdout)
    (tmp_path / "look").mkdir()
    subprocess.run(["mount", "-o", "ro", device, tmp_path / "look"], check=True)
    try:
        assert (tmp_path / "look/new").read_text() == "new\n"
    finally:
        subprocess.run(["umount", tmp_path / "look"], check=True)


@pytest.mark.only("qemu")
def test_a_read_only_rootfs_on_a_drive_refuses(host, ext4):
    words = ["--rootfs", str(ext4), "--read-only", "--", "touch", "/x"]
    assert b"Read-only file system" in host.vc("run", *words, check=1).stderr


@pytest.mark.only("qemu")
@pytest.mark.parametrize(
    "why", ["written", "disabled", "nobody passes disks", "more is mounted below"]
)
def test_what_a_guest_must_not_mount_is_shared_as_a_folder(host, ext4, mounted, why):
    _, point = mounted(ext4)
    rootfs = f"{point}/rootfs"
    if why == "disabled":
        host.configure("pod", disable_block_device_use=True)
    if why == "nobody passes disks":
        host.configure("use", devices=["char"])
    if why == "more is mounted below":
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", point / "rootfs/tmp"], check=True)
        (point / "rootfs/tmp/inner").touch()
    try:
        suffix = ":rw" if why == "written" else ""
        told = host.vc(
            "run", "--rootfs", f"{rootfs}{suffix}", "--", "sh", "-c", "mount; touch /w; ls /tmp"
        ).stdout
    finally:
        if why == "more is mounted below":
            subprocess.run(["umount", point / "rootfs/tmp"], check=True)
    assert b"/run/vc/drives" not in told
    assert (b"inner" in told) is (why == "more is mounted below")
    assert (point / "rootfs/w").exists() is (why == "written")


def test_images_that_cannot_be_are_refused_by_name(host, ext4, mounted, tmp_path):
    device, point = mounted(ext4)
    told = host.vc("run", "--rootfs", f"{device}:rw", "--", "true", check=125).stderr.decode()
    assert f"the rootfs {device} is mounted on {point}; unmount it there" in told
    (tmp_path / "zeros").write_bytes(bytes(8192))
    told = host.vc(
        "run", "--rootfs", str(tmp_path / "zeros"), "--", "true", check=125
    ).stderr.decode()
    assert "has no file system that a guest can mount (ext4, erofs)" in told
    host.configure("pod", disable_block_device_use=True)
    told = host.vc("run", "--rootfs", str(ext4), "--", "true", check=125).stderr.decode()
    assert "pod.disable_block_device_use is set" in told


@pytest.mark.only("qemu")
async def test_a_failed_container_takes_its_drive_along_and_harms_no_sibling(host, ext4):
    def spec(name: str, *args: str) -> ContainerSpec:
        return ContainerSpec(
            id=name,
            rootfs=Rootfs(path=Path(ext4), mode=RootfsMode.OVERLAY),
            process=ProcessSpec(args=args, env=("PATH=/bin",)),
        )

    async with host.runtime() as runtime, runtime.pod("p") as pod:
        good = await pod.create_container(spec("good", "sleep", "99"))
        await good.start()
        with pytest.raises(Exception, match="missing"):
            await (await pod.create_container(spec("bad", "/missing"))).start()
        assert [one.id for one in (await pod.status()).containers] == ["good"]
        listed = await good.exec(ProcessSpec(args=("ls", "/"), env=("PATH=/bin",)))
        assert b"bin" in (await listed.communicate()).stdout
        await good.delete(force=True)
