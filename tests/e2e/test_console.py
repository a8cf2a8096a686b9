"""What a guest writes to its console is bounded by the kernel of this host, whether somebody looks
or not.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import pytest

MOST = 8192
BLOCK = 4096
# As the owner of the guest's kernel: it writes the states of all tasks, many times.
FLOOD = """
mount -t proc proc /tmp && echo 8 > /tmp/sys/kernel/printk
for n in 1 2 3 4 5 6 7 8; do echo t > /tmp/sysrq-trigger; done
"""
LINE = "echo h > /tmp/sysrq-trigger"  # the kernel lists what it offers


@pytest.fixture(params=["tmpfs", "disk"])
def run_root(request, host):
    """On each kind of file system: the longest files of a tmpfs are as long as an offset
    can say.
    """
    if request.param == "disk":
        yield host.folder / "run"
        return
    with tempfile.TemporaryDirectory(dir="/dev/shm", prefix="vc") as folder:
        host.configure("storage.fs", run_root=folder)
        yield Path(folder)


@pytest.mark.only("qemu")
def test_a_guest_that_floods_its_console_fills_a_fixed_room(host, busybox, run_root):
    host.configure("hypervisor", console_max_bytes=MOST)
    host.vc(
        "run",
        "-d",
        "--name",
        "p",
        "--cap-add",
        "ALL",
        "--rootfs",
        str(busybox),
        "--",
        "sleep",
        "300",
    )
    console, log = run_root / "pods/p/console", run_root / "pods/p/qemu.log"
    host.vc("exec", "p", "--", "sh", "-c", FLOOD)
    assert console.stat().st_blocks * 512 <= 2 * MOST + 3 * BLOCK
    written = host.vc("pod", "console", "p").stdout
    assert MOST < len(written) <= 2 * MOST
    assert len(host.vc("pod", "console", "p").stdout) == MOST // 2  # the first look has made room
    host.vc("exec", "p", "--", "sh", "-c", LINE)
    assert b"show-task-states" in host.vc("pod", "console", "p").stdout[MOST // 2 :]
    # The machine's log is the other file that a guest can make grow. The state of its machine is
    # known all the same.
    with log.open("ab", buffering=0) as stream, pytest.raises(OSError, match=r"too large|Invalid"):
        stream.writelines([b"qemu-system-x86_64: the guest did something odd\n"] * 100_000)
    assert log.stat().st_blocks * 512 <= (1 << 20) + 3 * BLOCK
    host.vc("pod", "pause", "p")
    assert json.loads(host.vc("pod", "status", "p", "--json").stdout)["state"] == "paused"
    host.vc("pod", "resume", "p")
    host.vc("exec", "p", "--", "true")
    host.vc("pod", "delete", "--force", "p")
    assert not (run_root / "pods/p").exists()
