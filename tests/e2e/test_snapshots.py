"""Pods saved in the middle of their work, restored and forked: on real machines, with what
containers hold open.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from vc_qemu import monitor

from tests.e2e.conftest import Host

COUNT = "i=0; while :; do i=$((i+1)); echo $i > /tmp/count; echo tick $i; sleep 0.1; done"
IDENTITY = (
    "cat /etc/machine-id /proc/sys/kernel/random/boot_id; hostname; "
    "head -c 16 /dev/urandom | od -An -tx1"
)


async def _announce_rounds(host: Host, pod: str) -> int:
    async with monitor.connected(host.folder / "run/pods" / pod / "qmp.sock") as connection:
        answer = await connection.ask("query-migrate-parameters", dict[str, Any])
    return answer["announce-rounds"]


@pytest.fixture
def counting(host, busybox, tmp_path):
    """A pod that counts, with a folder of the host; its name."""
    (busybox / "etc/machine-id").write_text("0" * 32 + "\n")
    data = tmp_path / "data"
    data.mkdir()
    (data / "told").write_text("by the host\n")
    host.vc("pod", "create", "p")
    mount = f"{data}:/data"
    host.vc(
        "container",
        "create",
        "--name",
        "c",
        "--rootfs",
        str(busybox),
        "-v",
        mount,
        "p",
        "--",
        "sh",
        "-c",
        COUNT,
    )
    host.vc("pod", "start", "p")
    yield "p"
    for pod in json.loads(host.vc("pod", "ls", "--json").stdout):
        host.vc("pod", "delete", "--force", pod["id"])


def _told(host: Host, pod: str, script: str) -> str:
    return host.vc("exec", "-c", "c", pod, "--", "sh", "-c", script).stdout.decode()


def _count(host: Host, pod: str) -> int:
    return int(_told(host, pod, "until [ -s /tmp/count ]; do :; done; cat /tmp/count"))


def _fork(host: Host, pod: str, count: int = 1) -> list[str]:
    return host.vc("pod", "fork", pod, "-n", str(count)).stdout.decode().split()


def _files(host: Host) -> list[Path]:
    roots = (host.folder / "snapshots", host.config.template.dir / "forks")
    return [path for root in roots if root.exists() for path in root.iterdir()]


def test_forks_count_on_and_are_somebody_else(host, counting):
    before = _count(host, "p")
    pods = ["p", *_fork(host, "p", 2)]
    for pod in pods:
        first = _count(host, pod)
        assert before <= first < before + 200, pod
        assert (
            _told(host, pod, f"while [ $(cat /tmp/count) -le {first} ]; do :; done; echo on")
            == "on\n"
        )
        assert _told(host, pod, "cat /data/told") == "by the host\n"
    told = [_told(host, pod, IDENTITY).splitlines() for pod in pods]
    assert [len(set(column)) for column in zip(*told, strict=True)] == [3, 3, 3, 3]
    assert [lines[2] for lines in told] == pods
    for pod in pods:
        assert abs(float(_told(host, pod, "echo $(($(date +%s)))")) - time.time()) < 10
    assert _files(host) == []


def test_sessions_of_the_parent_go_on(host, counting):
    command = (
        "exec",
        "-c",
        "c",
        "p",
        "--",
        "sh",
        "-c",
        "while read line; do echo got $line; cat /data/told; done",
    )
    session = host.start(*command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def ask(word: bytes) -> bytes:
        session.stdin.write(word + b"\n")
        session.stdin.flush()
        return session.stdout.readline() + session.stdout.readline()

    assert ask(b"before") == b"got before\nby the host\n"
    (child,) = _fork(host, "p")
    assert ask(b"after") == b"got after\nby the host\n"
    session.communicate(timeout=60)
    assert session.returncode == 0
    assert _told(host, child, "echo here") == "here\n"


def test_a_snapshot_outlives_its_pod(host, counting):
    host.vc("pod", "snapshot", "p", "s")
    (found,) = json.loads(host.vc("snapshot", "ls", "--json").stdout)
    assert (found["name"], found["config"]["id"]) == ("s", "p")
    assert 20 << 20 < found["bytes"] < 256 << 20
    host.vc("pod", "delete", "--force", "p")
    for name in ("q", "p"):
        assert host.vc("pod", "restore", "s", "--name", name).stdout.decode().strip() == name
        assert _count(host, name) > 0
        assert _told(host, name, "hostname; cat /data/told") == f"{name}\nby the host\n"
    host.vc("snapshot", "rm", "s")
    assert _told(host, "q", "cat /bin/busybox | head -c 4 | tail -c 3") == "ELF"
    host.vc("pod", "stop", "q")
    host.vc("pod", "start", "q")
    assert _count(host, "q") > 0
    assert _files(host) == []


def test_all_that_was_plugged_is_there_again(host, ext4, busybox):
    """vCPUs, memory, a disk with an overlay, a folder that came later; and a fork of a fork."""
    host.vc("pod", "create", "--vcpus", "2", "--memory", "512m", "p")
    host.vc(
        "container",
        "create",
        "--name",
        "c",
        "--rootfs",
        str(ext4),
        "p",
        "--",
        "sh",
        "-c",
        "echo hi > /w; sleep 999",
    )
    host.vc("pod", "start", "p")
    host.vc(
        "container",
        "create",
        "--name",
        "late",
        "--rootfs",
        str(busybox),
        "--memory",
        "64m",
        "p",
        "--",
        "sleep",
        "999",
    )
    host.vc("container", "start", "p", "late")
    assert _told(host, "p", "cat /w; nproc") == "hi\n2\n"
    (child,) = _fork(host, "p")
    (grandchild,) = _fork(host, child)
    for pod in ("p", child, grandchild):
        assert (
            _told(host, pod, "cat /w; nproc; hostname; ls /bin | head -n 1")
            == f"hi\n2\n{pod}\nbusybox\n"
        )
        memory = int(_told(host, pod, "grep MemTotal /proc/meminfo").split()[1])
        assert memory > 500 << 10
        assert host.vc("exec", "-c", "late", pod, "--", "cat", "/etc/passwd").stdout.startswith(
            b"root:"
        )
        host.vc("container", "delete", "--force", pod, "late")  # unplugs what was plugged for it
        host.vc("pod", "delete", pod)


@pytest.mark.only("qemu")
def test_what_a_snapshot_cannot_contain_is_named(host, counting, tmp_path, ext4, busybox):
    done = host.vc("pod", "snapshot", "p", "../s", check=125)
    assert b"is no snapshot id" in done.stderr
    host.vc("pod", "snapshot", "p", "s")
    data = tmp_path / "data"
    data.rename(tmp_path / "moved")
    for command in (("pod", "fork", "p"), ("pod", "restore", "s")):
        told = host.vc(*command, check=125).stderr.decode()
        assert f"{data}, which container c of pod p has mounted, is gone" in told
    (tmp_path / "moved").rename(data)
    host.vc(
        "container", "create", "--name", "d", "--rootfs", f"{ext4}:rw", "p", "--", "sleep", "99"
    )
    told = host.vc("pod", "fork", "p", check=125).stderr.decode()
    assert (
        f"the disk {ext4} of container d is written to, and two machines must not do that" in told
    )
    host.vc("container", "delete", "--force", "p", "d")
    _told(host, "p", "exec 3>/data/gone; rm /data/gone; sleep 999 >/dev/null 2>&1 &")
    told = host.vc("pod", "fork", "p", check=125).stderr.decode()
    assert "a deleted file in it is still open" in told
    assert str(host.folder / "run/pods/p/files") in told
    assert _told(host, "p", "cat /data/told") == "by the host\n"  # nobody waits
    host.vc("pod", "create", "--no-quiesce", "q")
    host.vc(
        "container", "create", "--name", "c", "--rootfs", str(busybox), "q", "--", "sleep", "99"
    )
    host.vc("pod", "start", "q")
    told = host.vc("pod", "fork", "q", check=125).stderr.decode()
    assert f"pod q was made without can_quiesce and uses the directory {busybox}" in told
    host.vc("pod", "stop", "q")
    assert (
        b"pod q is stopped; to save it it must be running"
        in host.vc("pod", "fork", "q", check=125).stderr
    )
    host.vc("snapshot", "rm", "s")
    assert _files(host) == []
    assert len(json.loads(host.vc("pod", "ls", "--json").stdout)) == 2


def test_a_full_disk_is_told_and_nothing_is_left(host, counting, tmp_path):
    small = host.folder / "snapshots"
    small.mkdir(mode=0o700)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=20M,mode=700", "small", small], check=True)
    try:
        done = host.vc("pod", "snapshot", "p", "s", check=125)
        assert (
            b"No space left on device" in done.stderr
            or b"could not save the machine" in done.stderr
        )
        assert len(done.stderr.strip().splitlines()) == 1
        assert _files(host) == []
    finally:
        subprocess.run(["umount", small], check=True)
    assert _count(host, "p") > 0


def test_who_saves_may_be_killed_at_any_moment(host, counting):
    """The guest continues: a process that waited for a folder has it again, and the next call finds
    a running pod.
    """
    for moment_s in (0.15, 0.25, 0.3, 0.35, 0.4, 0.5):
        saving = host.start(
            "pod", "snapshot", "p", "s", stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
        )
        time.sleep(moment_s)  # not in place of an event: the moments are what is tried
        os.kill(saving.pid, signal.SIGKILL)
        saving.wait()
        assert _told(host, "p", "cat /data/told") == "by the host\n", moment_s
        assert json.loads(host.vc("pod", "status", "p", "--json").stdout)["state"] == "running"
    (child,) = _fork(host, "p")
    assert _count(host, child) > 0
    for found in json.loads(host.vc("snapshot", "ls", "--json").stdout):
        host.vc("snapshot", "rm", found["name"])
    assert [path for path in _files(host) if path.name.startswith(".half-")] == []


def test_a_machine_that_cannot_go_on_leaves_no_pod(host, counting):
    host.vc("pod", "snapshot", "p", "s")
    state = host.folder / "snapshots/s" / {"qemu": "state", "libvirt": "image"}[host.hypervisor]
    size = state.stat().st_size
    with state.open("r+b") as file:
        file.truncate(size // 2)
        file.truncate(size)  # as long as before, but nothing that QEMU could read
    told = host.vc("pod", "restore", "s", check=125).stderr.decode()
    assert "QEMU ended" in told or "libvirt error" in told
    assert len(json.loads(host.vc("pod", "ls", "--json").stdout)) == 1
    host.vc("snapshot", "rm", "s")


FILES = r"""
cd /data; umask 022
echo one > a; ln a b; ln -s a c; mkdir -p d/e; mv a d/e/f; echo two >> b; cat d/e/f
stat -c '%h %s' b; readlink c
chmod 640 b; stat -c %a b; dd if=/dev/zero of=big bs=1k count=300 2>/dev/null; stat -c %s big
dd if=b of=big bs=1 seek=5 conv=notrunc 2>/dev/null; stat -c %s big; : > big; stat -c %s big
cat x 2>/dev/null || echo none; touch x; cat x && echo there; rm x; ls; ls d/e
mv d/e/f d/g; cat d/g; rmdir d/e; ls d; mkdir full; touch full/x
rmdir full 2>/dev/null || echo not empty
exec 3<>held; echo kept >&3; rm held; exec 3>&-; ls | grep held || echo gone
sh -c 'echo $$ > mine'; test -s mine && echo written
i=0; while [ $i -lt 300 ]; do : > full/many$i; i=$((i+1)); done; ls full | grep -c many
"""


@pytest.mark.only("qemu")
def test_folders_behave_alike_whether_they_can_be_let_go_of_or_not(host, busybox, tmp_path):
    users = {"root": "0", "other": "1234:5678"}
    told = {}
    for kind in ("--can-quiesce", "--no-quiesce"):
        host.vc("pod", "create", kind, "p")
        for name, user in users.items():
            data = tmp_path / kind / name
            data.mkdir(parents=True)
            data.chmod(0o777)
            options = ("--name", name, "--rootfs", str(busybox), "-v", f"{data}:/data", "-u", user)
            host.vc("container", "create", *options, "p", "--", "sleep", "999")
        host.vc("pod", "start", "p")
        told[kind] = {
            name: _behaviour(host, name, user, tmp_path / kind / name)
            for name, user in users.items()
        }
        host.vc("pod", "delete", "--force", "p")
    assert told["--can-quiesce"] == told["--no-quiesce"]
    assert "300" in told["--no-quiesce"]["root"][0]


def _behaviour(host, container: str, user: str, data: Path) -> tuple[str, list[tuple[object, ...]]]:
    """What a user sees who does all kinds of things in a folder that is shared, and what the host
    finds there then.
    """
    within = ("exec", "-c", container, "-u", user, "p", "--", "sh", "-c")
    inside = host.vc(*within, FILES).stdout.decode()
    (data / "late").write_text("from the host")
    late = host.vc(
        *within, "cat /data/late; rm -f /data/late; ls /data/late 2>/dev/null || echo removed"
    ).stdout
    assert late == b"from the hostremoved\n"
    assert str((data / "mine").stat().st_uid) == user.partition(":")[0]
    found = sorted((str(path.relative_to(data)), path.lstat()) for path in data.rglob("*"))
    return inside, [(name, about.st_mode, about.st_uid, about.st_gid) for name, about in found]


@pytest.mark.only("qemu")
def test_what_the_host_changes_is_seen_at_once(host, counting, tmp_path):
    data = tmp_path / "data"

    def seen(script: str) -> str:
        return _told(host, "p", f"cd /data; {script}")

    assert seen("cat told; ls") == "by the host\ntold\n"
    with (data / "told").open("a") as file:
        file.write("and more\n")
    assert seen("cat told") == "by the host\nand more\n"
    (data / "other").write_text("another\n")
    (data / "other").rename(data / "told")
    assert seen("cat told; ls") == "another\ntold\n"
    (data / "told").unlink()
    assert seen("cat told 2>/dev/null || echo gone; ls") == "gone\n"
    (data / "told").mkdir()
    (data / "told/in").write_text("inside\n")
    assert seen("cat told/in") == "inside\n"


@pytest.mark.only("qemu")
async def test_no_clone_or_child_is_announced_to_the_network_with_its_origins_addresses(
    host, counting
):
    child = host.vc("pod", "fork", counting).stdout.decode().strip()
    assert await _announce_rounds(host, counting) == 0, "cloned from a template"
    assert await _announce_rounds(host, child) == 0
