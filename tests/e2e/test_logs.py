"""Containers that outlive their command: what they wrote, whether they are started again, whether
they are well.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from datetime import datetime

import pytest

SAYS = "echo out; echo err >&2; printf 'no end'"


def run(host, root, name, *words, **options):
    return host.vc("run", "-d", "--name", name, "--rootfs", str(root), *words, **options)


def rest(process: subprocess.Popen[bytes]) -> bytes:
    """All that it writes to its end, which is a good one; what was read of it before is not lost,
    as by communicate.
    """
    told = process.stdout.read()
    process.stdout.close()
    assert process.wait(timeout=60) == 0
    return told


@contextlib.contextmanager
def monitor(host, pod: str) -> Iterator[Callable[[str], None]]:
    """QEMU's own monitor: what it is told, `vc` does not know."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(host.folder / "run/pods" / pod / "qmp.sock"))
        answers = connection.makefile("rb")

        def tell(command: str) -> None:
            connection.sendall(json.dumps({"execute": command}).encode())
            while "return" not in json.loads(answers.readline()):
                """It is the greeting, or an event."""

        tell("qmp_capabilities")
        yield tell


def shown(host) -> dict:
    (row,) = json.loads(host.vc("ps", "--json").stdout)
    return row["container"]


@pytest.mark.only("qemu")
def test_a_log_is_there_after_its_container_has_ended(host, busybox):
    run(host, busybox, "p", "sh", "-c", f"{SAYS}; exit 3")
    assert host.vc("wait", "p").stdout == b"3\n"
    done = host.vc("logs", "p")
    assert (done.stdout, done.stderr) == (b"out\nno end", b"err\n")
    assert host.vc("logs", "-f", "p").stdout == b"out\nno end"
    lines = [json.loads(line) for line in host.vc("logs", "--json", "p").stdout.splitlines()]
    assert sorted((line["stream"], line["line"]) for line in lines) == [
        ("stderr", "err"),
        ("stdout", "no end"),
        ("stdout", "out"),
    ]
    host.vc("pod", "stop", "p")
    assert host.vc("logs", "p").stdout == b"out\nno end"
    host.vc("pod", "start", "p")
    host.vc("wait", "p")
    assert host.vc("logs", "p").stdout == b"out\nno endout\nno end"
    assert host.vc("logs", "--tail", "1", "p").stdout == b"no end"
    host.vc("pod", "delete", "p")
    assert list((host.folder / "lasting").glob("[!.]*")) == []


@pytest.mark.only("qemu")
def test_who_waits_for_the_end_finds_all_of_it_in_the_log(host, busybox):
    run(host, busybox, "p", "busybox", "seq", "200000")
    host.vc("wait", "p")
    assert host.vc("logs", "--tail", "1", "p").stdout == b"200000\n"
    host.vc("pod", "delete", "p")


@pytest.mark.only("qemu")
def test_who_looks_on_and_reads_nothing_holds_no_end(host, busybox):
    run(host, busybox, "p", "busybox", "yes", "on and on")
    viewer = host.start("attach", "p", stdout=subprocess.PIPE)
    viewer.stdout.readline()
    viewer.send_signal(signal.SIGSTOP)
    before, newest = b"", host.vc("logs", "--json", "--tail", "1", "p").stdout
    while before != newest:  # until all that lies between is full
        before, newest = newest, host.vc("logs", "--json", "--tail", "1", "p").stdout
    host.vc("container", "stop", "p")
    viewer.send_signal(signal.SIGCONT)
    told, _ = viewer.communicate(timeout=60)
    assert told[-1000:] == host.vc("logs", "p").stdout[-1000:], (
        "both have it to the same end, amid a line perhaps"
    )
    host.vc("pod", "delete", "p")


def test_a_log_is_there_after_its_machine_was_killed(host, busybox):
    run(host, busybox, "p", "sh", "-c", f"{SAYS}; sleep 1000")
    follower = host.start("logs", "-f", "p", stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert follower.stdout.readline() == b"out\n"
    (machine,) = host.machines()
    os.kill(machine, signal.SIGKILL)
    assert rest(follower) == b"no end"
    done = host.vc("logs", "p")
    assert (done.stdout, done.stderr) == (b"out\nno end", b"err\n")
    host.vc("pod", "delete", "--force", "p")


@pytest.mark.only("qemu")
def test_who_follows_sees_lines_as_they_come_and_the_end(host, busybox):
    script = "for i in 1 2 3; do echo $i; sleep 0.3; done"
    run(host, busybox, "p", "sh", "-c", script)
    follower = host.start("logs", "-f", "-t", "p", stdout=subprocess.PIPE)
    first = follower.stdout.readline()
    began = time.monotonic()
    more = rest(follower)
    assert time.monotonic() - began > 0.2
    assert [line.split()[1] for line in (first + more).splitlines()] == [b"1", b"2", b"3"]
    host.vc("pod", "delete", "p")


@pytest.mark.only("qemu")
def test_who_leaves_in_the_middle_is_no_error_and_a_log_can_be_read_in_part(host, busybox):
    run(host, busybox, "p", "sh", "-c", "echo old; sleep 1; echo new; sleep 1000")
    follower = host.start("logs", "-f", "p", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert follower.stdout.readline() == b"old\n"
    assert follower.stdout.readline() == b"new\n"
    follower.send_signal(signal.SIGINT)
    assert follower.communicate(timeout=60)[1].strip() == b""
    stamps = host.vc("logs", "-t", "p").stdout.split()
    assert host.vc("logs", "--since", stamps[2].decode(), "p").stdout == b"new\n"
    assert host.vc("logs", "--since", "1h", "p").stdout == b"old\nnew\n"
    assert b"is not a duration" in host.vc("logs", "--since", "yesterday", "p", check=125).stderr
    host.vc("pod", "delete", "--force", "p")


@pytest.mark.only("qemu")
def test_a_log_is_as_large_as_it_is_configured_and_keeps_the_newest(host, busybox):
    host.configure("data", log_mib=1)
    script = (
        "i=0; while [ $i -lt 30000 ]; do echo line $i of a log that is larger than its file; "
        "i=$((i+1)); done"
    )
    run(host, busybox, "p", "sh", "-c", script)
    host.vc("wait", "p")
    lines = host.vc("logs", "p").stdout.splitlines()
    numbers = [int(line.split()[1]) for line in lines[1:]]  # the first may have lost its beginning
    assert numbers == list(range(numbers[0], 30_000))
    assert 10_000 < len(numbers) < 30_000
    (file,) = (host.folder / "lasting/p").iterdir()
    assert file.stat().st_size == 1 << 20
    host.vc("pod", "delete", "p")


@pytest.mark.only("qemu")
def test_a_container_with_a_log_can_be_attached_to(host, busybox):
    run(host, busybox, "p", "sh", "-c", "while :; do echo tick; sleep 0.1; done")
    viewer = host.start("attach", "p", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert [viewer.stdout.readline() for _ in range(3)] == [b"tick\n"] * 3
    viewer.kill()
    viewer.communicate()
    assert len(host.vc("logs", "p").stdout.splitlines()) >= 3
    host.vc("pod", "delete", "--force", "p")


@pytest.mark.only("qemu")
def test_what_has_no_log_is_told(host, busybox):
    host.vc("pod", "create", "p")
    host.vc("container", "create", "--name", "c", "--rootfs", str(busybox), "p", "--", "true")
    done = host.vc("logs", "p", check=125)
    assert done.stderr == b"vc: error: container c has no log; 'vc run -d' makes one\n"
    host.vc("pod", "delete", "p")


@pytest.mark.only("qemu")
@pytest.mark.needs("snapshot")
def test_a_fork_goes_on_with_a_log_of_its_own(host, busybox):
    script = (
        "echo before; while [ ! -e /tmp/go ]; do sleep 0.1; done; echo after in $(hostname); "
        "sleep 1000"
    )
    host.vc("run", "-d", "--name", "p", "--rootfs", str(busybox), "sh", "-c", script)
    child = host.vc("pod", "fork", "p").stdout.decode().strip()
    for name in (child, "p"):
        host.vc("exec", "-c", "p", name, "--", "touch", "/tmp/go")
    for name in (child, "p"):
        follower = host.start("logs", "-f", name, stdout=subprocess.PIPE)
        assert follower.stdout.readline() == b"before\n"
        assert follower.stdout.readline() == f"after in {name}\n".encode()
        follower.kill()
        follower.communicate()
    host.vc("pod", "delete", "--force", "p", child)


@pytest.mark.only("qemu")
def test_a_container_is_started_again_as_its_policy_says(host, busybox):
    again = (
        "echo run; test $(cat /runs 2>/dev/null | grep -c .) -lt 2 && echo x >> /runs && exit 7; "
        "exit 0"
    )
    run(host, busybox, "p", "--restart", "on-failure", "--", "sh", "-c", again)
    assert host.vc("wait", "p").stdout == b"0\n"  # what it had written was still there
    assert (shown(host)["restarts"], shown(host)["exit"]["code"]) == (2, 0)
    assert host.vc("logs", "p").stdout == b"run\nrun\nrun\n"
    host.vc("pod", "delete", "p")
    run(host, busybox, "p", "--restart", "on-failure:1", "--", "sh", "-c", "echo run; exit 4")
    assert host.vc("wait", "p").stdout == b"4\n"
    assert host.vc("logs", "p").stdout == b"run\nrun\n"
    host.vc("pod", "delete", "p")


@pytest.mark.only("qemu")
def test_one_that_is_always_started_again_ends_when_somebody_asks_it_to(host, busybox):
    run(host, busybox, "p", "--restart", "always", "--", "sh", "-c", "echo run; exit 0")
    follower = host.start("logs", "-f", "p", stdout=subprocess.PIPE)
    assert [follower.stdout.readline() for _ in range(6)] == [b"run\n"] * 6
    host.vc(
        "container", "stop", "p"
    )  # in the pause before the next start, which has become seconds
    assert rest(follower) == b"", "and whoever follows is told that none comes"
    assert shown(host)["state"] == "stopped"
    host.vc("pod", "delete", "p")


@pytest.mark.only("qemu")
def test_health_is_checked_again_and_again(host, busybox):
    check = [
        "--health-cmd",
        "test -e /tmp/well",
        "--health-interval",
        "0.2s",
        "--health-retries",
        "2",
    ]
    run(host, busybox, "p", *check, "--", "sleep", "1000")

    def becomes(health: str) -> None:
        until = time.monotonic() + 60
        while shown(host)["health"] != health:
            assert time.monotonic() < until, shown(host)

    becomes("unhealthy")
    host.vc("exec", "p", "--", "touch", "/tmp/well")
    becomes("healthy")
    assert b"healthy" in host.vc("ps").stdout
    host.vc("pod", "delete", "--force", "p")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--restart", "sometimes"], b"is not no, always, on-failure or on-failure:N"),
        (["--restart", "always:3"], b"is not no, always, on-failure or on-failure:N"),
        (["--health-cmd", ""], b"--health-cmd is empty; give a command"),
        (["--health-cmd", "x", "--health-interval", "soon"], b"'soon' is not a duration"),
    ],
)
@pytest.mark.only("qemu")
def test_what_cannot_be_is_refused(host, busybox, words, told):
    assert told in run(host, busybox, "p", *words, "--", "true", check=125).stderr


@pytest.mark.only("qemu")
def test_lines_have_the_hosts_time_after_a_stop_that_nobody_tells_the_guest_of(host, busybox):
    """Only lines of the first moments have the time at which the machine was stopped."""
    counts = "i=0; while :; do echo $i; i=$((i+1)); sleep 0.2; done"
    run(host, busybox, "p", "sh", "-c", counts)
    with monitor(host, "p") as tell:
        follower = host.start("logs", "-f", "--json", "p", stdout=subprocess.PIPE)
        for _ in range(10):
            follower.stdout.readline()
        tell("stop")
        last = int(json.loads(host.vc("logs", "--json", "--tail", "1", "p").stdout)["line"])
        time.sleep(6)  # the gap itself
        resumed = time.time()
        tell("cont")
        lines = (json.loads(line) for line in follower.stdout)
        told = [
            (datetime.fromisoformat(line["time"]).timestamp(), time.time())
            for line in itertools.islice(lines, 30)
            if int(line["line"]) > last
        ]
    early = [at for at, _ in told if at < resumed - 2]
    assert len(told) > 15
    assert len(early) <= 4, (resumed, told)
    assert early == [at for at, _ in told[: len(early)]]
    assert all(at <= seen + 0.1 for at, seen in told), (resumed, told)
    host.vc("pod", "delete", "p")
    rest(follower)
