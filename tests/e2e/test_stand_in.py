"""What a stand-in does for engines beside its process: forwarded ports, and short memory."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from vc_network import netns

from tests.e2e import engines
from tests.e2e.test_runtime_command import (
    MOST_KIB,
    bundle,  # noqa: F401 (a fixture)
    caller,  # noqa: F401 (a fixture)
)

pytestmark = [
    pytest.mark.only("qemu"),
    pytest.mark.timeout(600),
    pytest.mark.skipif(os.geteuid() != 0, reason="an ordinary user's bundles are not set up here"),
]


@pytest.fixture
def namespace() -> Iterator[str]:
    """The path of a network namespace, as an engine makes it for a pod."""
    keeper = ("unshare", "--net", "sh", "-c", "ip link set lo up && echo ready; exec sleep 100000")
    with subprocess.Popen(keeper, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout.readline() == b"ready\n"
            yield f"/proc/{process.pid}/ns/net"
        finally:
            process.kill()


def _connected(namespace: str, port: int) -> socket.socket:
    with netns.opened(Path(namespace)) as descriptor:
        return asyncio.run(
            netns.within(
                descriptor, lambda: socket.create_connection(("127.0.0.1", port), timeout=60)
            )
        )


def test_programs_in_the_namespace_reach_the_loopback_of_the_machine(
    caller,  # noqa: F811
    bundle,  # noqa: F811
    busybox,
    namespace,
):
    script = "nc -ll -p 8081 -e cat & httpd -p 127.0.0.1:8080 -h /bin; exec cat"
    caller.create(bundle("sh", "-c", script, network=namespace), "c")
    caller("start", "c")
    enter = ("nsenter", f"--net={namespace}", "curl", "-s", "-m", "60")
    engines.wait_until(
        lambda: engines.run(*enter, "127.0.0.1:8081", check=None).returncode != 56  # it is reset
    )
    engines.wait_until(lambda: engines.run(*enter, "localhost:8080/sh", check=None).returncode == 0)
    program = (busybox / "bin/busybox").read_bytes()
    many = [
        subprocess.Popen((*enter, "127.0.0.1:8080/busybox"), stdout=subprocess.PIPE)
        for _ in range(20)
    ]
    assert [one.communicate()[0] == program for one in many] == [True] * 20
    with _connected(namespace, 8081) as echoing:
        sending = threading.Thread(
            target=lambda: (echoing.sendall(program), echoing.shutdown(socket.SHUT_WR))
        )
        sending.start()
        with echoing.makefile("rb") as received:
            assert received.read() == program
        sending.join()
    assert _pss_kib(caller.pid("c")) <= MOST_KIB
    with pytest.raises(ConnectionResetError), _connected(namespace, 8082) as refused:
        refused.recv(1)
    caller("delete", "--force", "c")
    rules = engines.run("nsenter", f"--net={namespace}", "nft", "list", "ruleset")
    assert rules.stdout == b""


def test_connections_that_nobody_takes_hold_up_nothing(
    caller,  # noqa: F811
    bundle,  # noqa: F811
    namespace,
):
    script = (
        "nc -ll -p 8081 -e sleep 1000 & httpd -p 8080 -h /bin; trap 'exit 9' TERM;"
        "exec 3<&0; cat <&3 & while true; do sleep 1; done"
    )
    made = caller.create(bundle("sh", "-c", script, network=namespace), "c")
    caller("start", "c")
    enter = ("nsenter", f"--net={namespace}", "curl", "-s", "-m", "60")
    engines.wait_until(lambda: engines.run(*enter, "127.0.0.1:8080/sh", check=None).returncode == 0)
    with contextlib.ExitStack() as stack:
        for number in range(16):
            stalled = stack.enter_context(_connected(namespace, 8080 + number % 2))
            stalled.setblocking(False)
            if number % 2:
                with contextlib.suppress(BlockingIOError):
                    while stalled.send(bytes(1 << 20)):  # and sleep reads nothing
                        pass
            else:
                stalled.send(b"GET /busybox HTTP/1.0\r\n\r\n")  # and nothing is read
        made.stdin.write(b"line\n")
        made.stdin.flush()
        assert made.stdout.readline() == b"line\n"
        assert _pss_kib(caller.pid("c")) <= MOST_KIB
        caller("kill", "c", "TERM")
        assert caller.ended("c") == 9


def _pss_kib(pid: int) -> int:
    usage = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return int(re.search(r"^Pss: +(\d+) kB", usage, re.MULTILINE)[1])


def test_memory_that_was_short_is_told_by_the_callers_control_group(
    caller,  # noqa: F811
    bundle,  # noqa: F811
):
    """As containerd and conmon look for it."""
    group = Path(f"/sys/fs/cgroup/memory/vc-test-{os.getpid()}")
    for script, kills in (
        ("exec dd if=/dev/zero of=/dev/null bs=100M", 1),
        ("sh -c 'kill -9 $$'; exit 137", 0),
    ):
        folder = bundle("sh", "-c", script)
        document = json.loads((folder / "config.json").read_text())
        document["linux"]["resources"] = {"memory": {"limit": 32 << 20}}
        (folder / "config.json").write_text(json.dumps(document))
        caller.create(folder, "c")
        limit = (group / "memory.limit_in_bytes").read_text()
        caller("start", "c")
        assert caller.ended("c") in (-signal.SIGKILL, 128 + signal.SIGKILL)
        assert f"oom_kill {kills}\n" in (group / "memory.oom_control").read_text()
        engines.wait_until(lambda: (group / "memory.limit_in_bytes").read_text() == limit)  # noqa: B023
        caller("delete", "c")
        assert caller.host.machines() == []


def test_memory_that_was_short_for_a_further_process_is_told_there_too(
    caller,  # noqa: F811
    bundle,  # noqa: F811
):
    group = Path(f"/sys/fs/cgroup/memory/vc-test-{os.getpid()}")
    folder = bundle("sleep", "1000")
    document = json.loads((folder / "config.json").read_text())
    document["linux"]["resources"] = {"memory": {"limit": 32 << 20}}
    (folder / "config.json").write_text(json.dumps(document))
    caller.create(folder, "c")
    caller("start", "c")
    limit = (group / "memory.limit_in_bytes").read_text()
    hog = ("exec", "--env", "PATH=/bin", "c", "dd", "if=/dev/zero", "of=/dev/null", "bs=100M")
    for kills in (1, 2):
        assert caller(*hog, check=None).returncode == -signal.SIGKILL
        assert f"oom_kill {kills}\n" in (group / "memory.oom_control").read_text()
        engines.wait_until(lambda: (group / "memory.limit_in_bytes").read_text() == limit)
    assert caller.state("c")["status"] == "running"
    assert (group / "cgroup.procs").read_text() == f"{caller.pid('c')}\n"
    caller("kill", "c", "KILL")
    assert caller.ended("c") == -signal.SIGKILL
    caller("delete", "c")
    assert not group.exists()
