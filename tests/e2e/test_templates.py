"""Pods that are clones: nothing shared that must not be, and whatever goes wrong, a pod or a clear
word.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from pathlib import Path

import pytest

from tests.e2e.conftest import Host, new_host, processes

IDENTITY = (
    "cat /etc/machine-id /proc/sys/kernel/random/boot_id; hostname; "
    "head -c 16 /dev/urandom | od -An -tx1"
)
QEMU = "qemu-system-x86_64"

pytestmark = pytest.mark.needs("clone")


@pytest.fixture
def alone(hypervisor):
    """A host with templates of its own."""
    folder = Path(
        tempfile.mkdtemp(prefix="vc-", dir="/dev/shm")
    )  # with a short name, for sockets lie in it
    found = new_host(folder, hypervisor)
    yield found
    left = found.residue()
    for pid in found.machines():
        os.kill(pid, 9)
    shutil.rmtree(folder)
    assert left == []


def _templates(host: Host) -> list[dict]:
    return json.loads(host.vc("template", "ls", "--json").stdout)


def _is_clone(host: Host, pod: str) -> bool:
    pid = json.loads(host.vc("pod", "status", pod, "--json").stdout)["pid"]
    return b"-incoming" in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")


def test_a_template_is_made_used_shown_and_removed(alone, busybox):
    key = alone.vc("template", "create").stdout.decode().strip()
    assert alone.vc("template", "create").stdout.decode().strip() == key
    (found,) = _templates(alone)
    assert found["key"] == key
    assert 20 << 20 < found["bytes"] < 256 << 20
    assert key in alone.vc("template", "ls").stdout.decode()
    alone.vc("run", "-d", "--name", "p", "--rootfs", str(busybox), "--", "sleep", "300")
    assert _is_clone(alone, "p")
    assert alone.vc("template", "rm", key[:5]).stdout.decode().strip() == key
    assert (
        alone.vc("exec", "p", "--", "echo", "still here").stdout == b"still here\n"
    )  # its memory lives on
    alone.vc("pod", "delete", "--force", "p")
    assert list((alone.folder / "templates").iterdir()) == []


def test_clones_share_no_identity_and_no_random_numbers(host):
    told = [
        host.vc("run", "--rootfs", "/", "--", "sh", "-c", IDENTITY).stdout.decode().splitlines()
        for _ in range(3)
    ]
    machine_ids, boot_ids, names, numbers = (set(column) for column in zip(*told, strict=True))
    assert [len(each) for each in (machine_ids, boot_ids, names, numbers)] == [3, 3, 3, 3]
    host_id = (
        Path("/etc/machine-id").read_text().strip() if Path("/etc/machine-id").exists() else ""
    )
    assert host_id not in machine_ids
    assert all(len(one) == 32 and int(one, 16) for one in machine_ids)


def test_a_clone_differs_without_any_seed_of_ours(host, tmp_path):
    """vmgenid alone: the guest's kernel says that it has reseeded, and no agent had a
    part in it.
    """
    log = "dmesg | grep -c 'reseeded due to virtual machine fork'"
    done = host.vc(
        "run", "--rootfs", "/", "--start", "template", "--cap-add", "SYSLOG", "--", "sh", "-c", log
    )
    assert done.stdout == b"1\n"


def test_a_clones_clock_is_the_hosts(host, busybox):
    host.vc("template", "create")
    before = time.time()
    told = float(
        host.vc("run", "--rootfs", str(busybox), "--", "sh", "-c", "echo $(($(date +%s)))").stdout
    )
    assert before - 1 <= told <= time.time()


def test_pods_of_any_size_grow_from_one_template(host, busybox):
    count = "nproc; grep MemTotal /proc/meminfo"
    small = host.vc("run", "--rootfs", str(busybox), "--", "sh", "-c", count).stdout.split()
    large = host.vc(
        "run",
        "--vcpus",
        "2",
        "--vm-memory",
        "512m",
        "--rootfs",
        str(busybox),
        "--",
        "sh",
        "-c",
        count,
    ).stdout.split()
    assert (int(small[0]), int(large[0])) == (1, 2)
    assert int(large[2]) - int(small[2]) >= 250 << 10


def test_a_pod_may_boot(host, busybox):
    host.vc(
        "run",
        "-d",
        "--name",
        "p",
        "--start",
        "cold",
        "--rootfs",
        str(busybox),
        "--",
        "sleep",
        "300",
    )
    assert not _is_clone(host, "p")
    host.vc("pod", "delete", "--force", "p")


def test_a_template_deleted_while_ten_start_gives_ten_pods(alone, busybox):
    alone.vc("template", "create")
    command = ("run", "--rootfs", str(busybox), "--", "echo", "here")
    starting = [
        alone.start(*command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(10)
    ]
    alone.vc("template", "rm", "--all")
    outcomes = [(process.communicate(timeout=200), process.returncode) for process in starting]
    assert [(out, code) for (out, _), code in outcomes] == [(b"here\n", 0)] * 10, outcomes
    assert len(_templates(alone)) <= 1  # those that came too late have made another


def test_two_processes_make_one_template(alone):
    both = [alone.start("template", "create", stdout=subprocess.PIPE) for _ in range(2)]
    keys = {process.communicate(timeout=200)[0] for process in both}
    assert len(keys) == 1
    assert len(_templates(alone)) == 1


def _first(host: Host, word: str, limit_s: float = 60) -> int:
    """The process of our QEMU that has a word on its command line, as soon as there is one."""
    end = time.monotonic() + limit_s
    while time.monotonic() < end:
        for pid, words in processes():
            if (
                words
                and QEMU in words[0]
                and any(word in each for each in words)
                and str(host.folder) in str(words)
            ):
                return pid
        os.sched_yield()
    raise AssertionError(f"no QEMU with {word}")


def _killed(host: Host, word: str) -> threading.Thread:
    killer = threading.Thread(target=lambda: os.kill(_first(host, word), signal.SIGKILL))
    killer.start()
    return killer


def test_qemu_killed_while_it_becomes_a_template_gives_a_pod_that_boots(alone, busybox):
    killer = _killed(alone, "half-")
    done = alone.vc("run", "--rootfs", str(busybox), "--", "echo", "here")
    killer.join()
    assert done.stdout == b"here\n"
    assert b"boots, for it could not be cloned from a template" in done.stderr
    assert _templates(alone) == []


def test_qemu_killed_while_it_loads_gives_a_pod_that_boots(alone, busybox):
    alone.vc("template", "create")
    killer = _killed(alone, "defer")
    done = alone.vc("run", "--rootfs", str(busybox), "--", "echo", "here")
    killer.join()
    assert done.stdout == b"here\n"
    assert b"boots, for it could not be cloned from a template" in done.stderr


def test_a_maker_that_is_killed_leaves_nothing_behind(alone, busybox):
    maker = alone.start("template", "create")
    _first(alone, "half-")
    maker.kill()
    maker.wait()
    assert _templates(alone) == []  # looking is enough to clear up
    assert alone.machines() == []
    assert [path.name for path in (alone.folder / "templates").iterdir() if path.is_dir()] == []


def test_a_full_disk_gives_a_pod_that_boots_and_names_the_remedy(alone, busybox):
    small = alone.folder / "templates"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=100m,mode=700", "tmpfs", small], check=True)
    try:
        done = alone.vc("run", "--rootfs", str(busybox), "--", "echo", "here")
        assert done.stdout == b"here\n"
        assert b"MiB left and a template may take 256" in done.stderr
        assert list(small.glob("*/")) == []
    finally:
        subprocess.run(["umount", small], check=True)


def test_a_disk_that_fills_up_meanwhile_gives_a_pod_that_boots(alone, busybox):
    small = alone.folder / "templates"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=260m,mode=700", "tmpfs", small], check=True)
    try:
        filler = threading.Thread(target=lambda: (_first(alone, "half-"), _fill(small / "filler")))
        filler.start()
        done = alone.vc("run", "--rootfs", str(busybox), "--", "echo", "here")
        filler.join()
        assert done.stdout == b"here\n"
        assert b"boots, for it could not be cloned from a template" in done.stderr
        assert list(small.glob("*/")) == []
    finally:
        subprocess.run(["umount", small], check=True)


def _fill(file: Path) -> None:
    with contextlib.suppress(OSError), file.open("wb", buffering=0) as stream:
        while True:
            stream.write(bytes(1 << 20))


def test_a_damaged_template_is_told_and_made_again(alone, busybox):
    key = alone.vc("template", "create").stdout.decode().strip()
    os.truncate(alone.folder / "templates" / key / "state", 1000)
    done = alone.vc("run", "-d", "--name", "p", "--rootfs", str(busybox), "--", "sleep", "300")
    assert b"is damaged: its files have other sizes than when it was made" in done.stderr
    assert _is_clone(alone, "p")
    assert (alone.folder / "templates" / key / "state").stat().st_size > 1000
    alone.vc("pod", "delete", "--force", "p")


def test_memory_may_lie_in_huge_pages(alone, busybox):
    pages = Path("/proc/sys/vm/nr_hugepages")
    before = pages.read_text()
    mounted = alone.folder / "huge"
    mounted.mkdir()
    pages.write_text("400")
    subprocess.run(["mount", "-t", "hugetlbfs", "-o", "pagesize=2M", "none", mounted], check=True)
    try:
        alone.configure("template", memory_dir=str(mounted))
        alone.vc("template", "create")
        assert [path.stat().st_size for path in mounted.iterdir()] == [256 << 20]
        done = alone.vc("run", "--rootfs", str(busybox), "--", "echo", "here")
        assert (done.stdout, done.stderr) == (b"here\n", b"")
        alone.vc("template", "rm", "--all")
        assert list(mounted.iterdir()) == []
    finally:
        subprocess.run(["umount", mounted], check=True)
        pages.write_text(before)
