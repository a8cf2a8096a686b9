"""Machines made in advance, on a real host: taken by one each, paused meanwhile, and a keeper that
may be killed.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import subprocess
import tempfile
import threading
from pathlib import Path

import pytest

from tests.e2e.conftest import Host, new_host, processes
from vc_core.engine.clones import pool_process

pytestmark = pytest.mark.needs("clone")


@pytest.fixture
def pooled(hypervisor):
    """A host whose pool is kept; whatever happens, it is not afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="vc-", dir="/dev/shm"))
    host = new_host(folder, hypervisor)
    host.vc("pool", "start", "--size", "2")
    yield host
    host.vc("pool", "stop", check=None)
    left = host.residue()
    for pid in host.machines():
        os.kill(pid, signal.SIGKILL)
    shutil.rmtree(folder)
    assert left == []


def _waiting(host: Host) -> set[str]:
    return {one["id"] for one in json.loads(host.vc("pool", "ls", "--json").stdout)}


def _keeper(host: Host) -> int:
    return next(
        pid for pid, words in processes() if "keep" in words and str(host.config_file) in words
    )


def _cpu_ticks(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def _refilled(host: Host) -> set[str]:
    """What waits when the keeper has made good what was taken; each look asks for it again."""
    while len(found := _waiting(host)) < 2:
        os.sched_yield()
    return found


def test_a_taken_machine_is_a_pod_like_any_other_and_is_replaced(pooled, busybox):
    before = _waiting(pooled)
    assert len(before) == 2
    (pooled.folder / "data").mkdir()
    (pooled.folder / "data/file").write_text("hello")
    bind = f"{pooled.folder}/data:/data"
    root = ("--rootfs", str(busybox))
    pooled.vc(
        "run", "-d", "--name", "p", "--start", "pool", *root, "-v", bind, "--", "sleep", "300"
    )
    assert len(before - _waiting(pooled)) == 1
    assert pooled.vc("exec", "p", "--", "cat", "/data/file").stdout == b"hello"
    assert pooled.vc("exec", "p", "--", "hostname").stdout == b"p\n"
    assert len(_refilled(pooled)) == 2
    pooled.vc("pod", "stop", "p")
    assert pooled.vc("pod", "console", "p").returncode == 0
    pooled.vc("pod", "start", "p")  # takes another one
    assert pooled.vc("exec", "p", "--", "cat", "/data/file").stdout == b"hello"
    pooled.vc("pod", "delete", "--force", "p")


def test_waiting_machines_are_in_the_jail(pooled):
    machines = pooled.machines()
    assert len(machines) == 2
    for pid in machines:
        status = Path(f"/proc/{pid}/status").read_text()
        assert "NoNewPrivs:\t1" in status
        assert "Seccomp:\t2" in status
        for name in ("mnt", "pid", "net", "ipc"):
            own = Path(f"/proc/{pid}/ns/{name}").readlink()
            assert own != Path(f"/proc/self/ns/{name}").readlink(), name
        assert not Path(f"/proc/{pid}/root/etc/shadow").exists()


def test_waiting_machines_use_no_processor(pooled):
    machines = pooled.machines()
    assert len(machines) == 2

    def used() -> list[int]:
        before = [_cpu_ticks(pid) for pid in machines]
        pooled.vc("--version")
        pooled.vc("pod", "ls")
        return [_cpu_ticks(pid) - one for pid, one in zip(machines, before, strict=True)]

    if used() != [0, 0]:  # who has just been paused may still be at it
        assert used() == [0, 0]


def test_taken_machines_share_no_identity(pooled, busybox):
    script = (
        "cat /proc/sys/kernel/random/boot_id; hostname; head -c 16 /dev/urandom | od -An -tx1; "
        "date +%s"
    )
    command = ("run", "--start", "pool", "--rootfs", "/", "--", "sh", "-c", script)
    both = [pooled.start(*command, stdout=subprocess.PIPE) for _ in range(2)]
    told = [process.communicate(timeout=120)[0].decode().splitlines() for process in both]
    boot_ids, names, numbers, clocks = (set(column) for column in zip(*told, strict=True))
    assert (len(boot_ids), len(names), len(numbers)) == (2, 2, 2)
    assert max(map(int, clocks)) - min(map(int, clocks)) <= 3


def test_a_killed_keeper_harms_nobody(pooled, busybox):
    os.kill(_keeper(pooled), signal.SIGKILL)
    assert len(_waiting(pooled)) == 2
    assert b"no process keeps machines ready" in pooled.vc("pool", "ls").stderr
    done = pooled.vc("run", "--start", "pool", "--rootfs", str(busybox), "--", "echo", "here")
    assert (done.stdout, done.stderr) == (b"here\n", b"")
    _keeper(pooled)  # the taker has started another one
    assert len(_refilled(pooled)) == 2


def test_stop_ends_a_keeper_that_is_just_starting_and_what_a_killed_one_left(pooled):
    os.kill(_keeper(pooled), signal.SIGKILL)
    half_made = pooled.folder / "templates/pool/0123456789ab"
    half_made.mkdir()
    keeper = pool_process.spawn(pooled.config, 1, subprocess.PIPE)
    pooled.vc("pool", "stop")
    with keeper.stdout as output:
        output.read()  # its end
    assert not [path for path in half_made.parent.iterdir() if path.is_dir()]
    assert pooled.machines() == []


def test_a_keeper_that_has_ended_is_no_dead_child(pooled):
    pooled.vc("pool", "stop")
    keeper = pool_process.spawn(pooled.config, 1, subprocess.PIPE)
    assert keeper is not None
    with keeper.stdout:
        assert keeper.stdout.readline() == f"{pool_process.READY}\n".encode()
        pooled.vc("pool", "stop")
        for thread in threading.enumerate():
            if thread.name == pool_process.WAITING:
                thread.join()
    assert not Path(f"/proc/{keeper.pid}").exists()


def test_a_second_keeper_is_refused(pooled):
    assert b"another process keeps the pool" in pooled.vc("pool", "start", check=125).stderr


def test_a_pool_goes_with_its_template(pooled):
    pooled.vc("template", "rm", "--all")
    assert _waiting(pooled) == set()
    assert pooled.machines() == []


def test_a_pool_whose_folder_is_removed_ends(pooled):
    keeper = os.pidfd_open(_keeper(pooled))
    machines = [os.pidfd_open(pid) for pid in pooled.machines()]
    assert len(machines) == 2
    shutil.rmtree(pooled.folder / "templates/pool", ignore_errors=True)  # it has mounts, for root
    for handle in (*machines, keeper):
        ended, _, _ = select.select([handle], [], [], 120)
        os.close(handle)
        assert ended
