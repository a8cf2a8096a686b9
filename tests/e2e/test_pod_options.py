"""What containers of a pod have in common, and what changes while they live."""

from __future__ import annotations

import json
import re

import pytest

from vc_core import ContainerSpec, Dns, PodOptions, ProcessSpec, Rootfs

pytestmark = pytest.mark.only("qemu")

PATH = ("PATH=/bin",)


def _spec(name: str, rootfs, *args: str) -> ContainerSpec:
    return ContainerSpec(
        id=name, rootfs=Rootfs(path=rootfs), process=ProcessSpec(args=args, env=PATH)
    )


async def _told(container, *args: str) -> str:
    process = await container.exec(ProcessSpec(args=args, env=PATH))
    return (await process.communicate()).stdout.decode()


async def test_containers_share_pids_memory_and_name_servers_when_asked(host, busybox):
    options = PodOptions(
        dns=Dns(
            servers=("192.0.2.1", "2001:db8::1"), searches=("example.org",), options=("ndots:2",)
        ),
        is_pid_shared=True,
        shared_shm_bytes=2 << 20,
    )
    async with host.runtime() as runtime, runtime.pod("p", hostname="one", options=options) as pod:
        first, second = [
            await pod.create_container(_spec(name, busybox, "sleep", f"9{name}"))
            for name in ("1", "2")
        ]
        await first.start()
        await second.start()
        assert "sleep 91" in await _told(second, "ps"), "they see each other"
        assert "sleep 92" in await _told(first, "ps")
        assert (await _told(first, "sh", "-c", "echo shared > /dev/shm/x; hostname")) == "one\n"
        assert await _told(second, "sh", "-c", "cat /dev/shm/x; df -k /dev/shm | tail -n 1") != ""
        assert "shared" in await _told(second, "cat", "/dev/shm/x")
        assert await _told(first, "cat", "/etc/resolv.conf") == (
            "nameserver 192.0.2.1\nnameserver 2001:db8::1\nsearch example.org\noptions ndots:2\n"
        )
        await first.stop(0)
        assert "sleep 91" not in await _told(second, "ps")
        assert [row.command for row in await second.processes()] == [("sleep", "92")], (
            "its own only"
        )
        await second.delete(force=True)


async def test_containers_are_apart_otherwise(host, busybox):
    async with host.runtime() as runtime, runtime.pod("p") as pod:
        first, second = [
            await pod.create_container(_spec(name, busybox, "sleep", f"9{name}"))
            for name in ("1", "2")
        ]
        await first.start()
        await second.start()
        await _told(first, "sh", "-c", "echo mine > /dev/shm/x")
        assert await _told(second, "ls", "/dev/shm") == ""
        assert "sleep 91" not in await _told(second, "ps")


def test_annotations_are_set_read_and_kept(host, busybox):
    host.vc("pod", "create", "p", "--annotation", "a=1")
    host.vc(
        "container", "create", "--name", "c", "--rootfs", str(busybox), "p", "--", "sleep", "99"
    )
    assert host.vc("pod", "annotate", "p", "b=2=3", "a-").stdout == b"b=2=3\n"
    assert host.vc("container", "annotate", "p", "c", "k=v").stdout == b"k=v\n"
    host.vc("pod", "start", "p")
    assert json.loads(host.vc("pod", "annotate", "p", "--json").stdout) == {"b": "2=3"}
    found = json.loads(host.vc("pod", "status", "p", "--json").stdout)
    assert found["config"]["annotations"] == {"b": "2=3"}
    assert found["containers"][0]["spec"]["annotations"] == [["k", "v"]]
    assert b"is not KEY=VALUE" in host.vc("pod", "annotate", "p", "odd", check=125).stderr
    host.vc("pod", "delete", "p")


def test_ps_as_rows_and_as_the_containers_own_text(host):
    host.vc("run", "-d", "--name", "p", "--", "sleep", "98")
    told = host.vc("container", "ps", "p", "--args", "-o pid,args").stdout.decode()
    assert told.splitlines()[0].split() == ["PID", "COMMAND"]
    assert "1 sleep 98" in told
    assert b"sleep 98" in host.vc("container", "ps", "p").stdout
    wrong = host.vc("container", "ps", "p", "--args", "--no-such-option", check=125).stderr.decode()
    assert "ps --no-such-option ended with 1 in container p: error:" in wrong
    host.vc("pod", "delete", "p")


def test_kill_reaches_one_process_or_all_by_name_or_number(host, busybox):
    script = "trap 'echo one > /dev/null' USR1; sleep 300 & sleep 301 & wait; wait; wait"
    host.vc("run", "-d", "--name", "p", "--rootfs", str(busybox), "--", "sh", "-c", script)
    host.vc("container", "kill", "p", "--signal", "USR1")
    assert len(re.findall(rb"root +sleep 30", host.vc("exec", "p", "--", "ps").stdout)) == 2, (
        "only the first was told"
    )
    host.vc("container", "kill", "p", "--signal", "9", "--all")
    assert host.vc("container", "wait", "p").stdout == b"137\n"
    host.vc("pod", "delete", "p")


def test_privileges_of_one_more_process(host, busybox):
    host.vc("run", "-d", "--name", "p", "--rootfs", str(busybox), "--", "sleep", "99")
    script = "grep -E 'CapEff|NoNewPrivs|Groups' /proc/self/status; id -u"
    words = [
        "--user",
        "1234:5678",
        "--group",
        "extra",
        "--group",
        "77",
        "--cap-drop",
        "ALL",
        "--new-privileges",
    ]
    told = host.vc("exec", *words, "p", "--", "sh", "-c", script).stdout.decode()
    assert "CapEff:\t0000000000000000" in told
    assert "NoNewPrivs:\t0" in told
    assert {"4321", "77"} <= set(told.split("Groups:")[1].splitlines()[0].split())
    assert told.endswith("1234\n")
    host.vc("pod", "delete", "p")
