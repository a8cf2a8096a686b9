"""`vc-runtime start` by the stand-in: what it leaves, killed at each of its steps, and who may ask.

The test stands between the command and the stand-in, so that each step takes as long as it wants.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from vc_runtime import starter
from vc_runtime.records import Records

from tests.e2e import engines
from tests.e2e.test_runtime_command import bundle, caller

__all__ = ["bundle", "caller"]  # the fixtures

pytestmark = [
    pytest.mark.only("qemu"),
    pytest.mark.timeout(600),
    pytest.mark.skipif(os.geteuid() != 0, reason="an ordinary user's bundles are not set up here"),
]
LIMIT_S = 120
NOBODY = 65534
VICTIMS = ("start", "stand-in", "machine")
PROGRAM = ("sh", "-c", "echo up; exec sleep 1000")


class Between:
    """The command has connected to the test, and waits; `on` is connected to the stand-in."""

    def __init__(self, listener: socket.socket, on: socket.socket) -> None:
        self.listener = listener
        self.on = on
        self.start: subprocess.Popen[bytes] | None = None

    def begin(self, caller) -> socket.socket:
        """Types the command, and returns its connection."""
        words = (caller.command, "--root", caller.folder / "root", "start", "c")
        self.start = subprocess.Popen([*map(str, words)], stderr=subprocess.PIPE)
        connection, _ = self.listener.accept()
        return connection

    def ask(self, folder: int) -> None:
        """Asks the stand-in."""
        self.on.connect(f"/proc/self/fd/{folder}/real")


@contextlib.contextmanager
def between(caller) -> Iterator[tuple[Between, int]]:
    """Takes the place of the stand-in's socket; gives a descriptor of the record's folder, too."""
    records = Records(caller.folder / "root")
    (caller.folder / "root/c/start.sock").rename(caller.folder / "root/c/real")
    with (
        starter.listening(records, "c") as listener,
        records.opened("c") as folder,
        socket.socket(socket.AF_UNIX) as on,
    ):
        listener.settimeout(LIMIT_S)
        on.settimeout(LIMIT_S)
        found = Between(listener, on)
        yield found, folder
        with found.start as process:
            process.kill()


def _pid(host, caller, found, victim: str) -> int:
    (machine,) = host.machines()
    return {"start": found.start.pid, "stand-in": caller.pid("c"), "machine": machine}[victim]


def _handles(pid: int) -> int:
    """Returns how many files a process has open."""
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def _groups() -> list[Path]:
    return list(Path("/sys/fs/cgroup").glob(f"*/vc-test-{os.getpid()}"))


def _ends_and_leaves_nothing(caller, bundle, host, made, victim) -> None:
    """The engine sees the end that follows, and what it does then succeeds."""
    if victim == "stand-in":
        assert caller.ended("c") == -signal.SIGKILL
    if victim == "machine":
        assert caller.ended("c") == 137
    if victim != "start":
        assert caller.state("c")["status"] == "stopped"
    caller("delete", "--force", "c")
    if victim == "start":
        assert caller.ended("c") == -signal.SIGKILL
    assert made.stdout.read() in (b"", b"up\n")  # nobody else has the pipe
    assert host.machines() == []
    assert host.residue() == []
    assert _groups() == []
    assert list((caller.folder / "root").iterdir()) == []
    again = caller.create(bundle(*PROGRAM), "c")
    caller("start", "c")
    assert again.stdout.readline() == b"up\n"
    caller("delete", "--force", "c")
    assert caller.ended("c") == -signal.SIGKILL


@pytest.mark.parametrize("victim", VICTIMS)
def test_before_the_stand_in_is_asked(caller, bundle, host, victim):
    made = caller.create(bundle(*PROGRAM), "c")
    with between(caller) as (found, _):
        connection = found.begin(caller)
        os.kill(_pid(host, caller, found, victim), signal.SIGKILL)
        connection.close()  # as the kernel does when the stand-in ends
        assert found.start.wait(LIMIT_S) == (-signal.SIGKILL if victim == "start" else 1)
        if victim != "start":
            assert b"has not answered, so the container may run" in found.start.stderr.read()
    _ends_and_leaves_nothing(caller, bundle, host, made, victim)


@pytest.mark.parametrize("victim", VICTIMS)
def test_while_the_guest_is_asked(caller, bundle, host, victim):
    made = caller.create(bundle(*PROGRAM), "c")
    (machine,) = host.machines()
    with between(caller) as (found, folder):
        os.kill(machine, signal.SIGSTOP)  # it does not answer
        connection = found.begin(caller)
        handles = _handles(caller.pid("c"))
        found.ask(folder)
        engines.wait_until(lambda: _handles(caller.pid("c")) > handles, "its connection")
        os.kill(_pid(host, caller, found, victim), signal.SIGKILL)
        if victim == "start":
            assert found.start.wait(LIMIT_S) == -signal.SIGKILL
            assert connection.recv(1) == b""
            connection.close()
            found.on.close()  # the stand-in gives up
        else:
            with contextlib.suppress(ConnectionResetError):  # it has ended before it could read
                connection.sendall(found.on.recv(4096))
            connection.close()
            if victim == "stand-in":
                os.kill(machine, signal.SIGCONT)
            assert found.start.wait(LIMIT_S) == 1
        with contextlib.suppress(ProcessLookupError):
            os.kill(machine, signal.SIGCONT)
    _ends_and_leaves_nothing(caller, bundle, host, made, victim)


@pytest.mark.parametrize("victim", VICTIMS)
def test_when_the_container_runs_and_nothing_is_recorded(caller, bundle, host, victim):
    made = caller.create(bundle(*PROGRAM), "c")
    with between(caller) as (found, folder):
        connection = found.begin(caller)
        found.ask(folder)
        assert found.on.recv(4096) == b"ok"
        assert made.stdout.readline() == b"up\n"
        os.kill(_pid(host, caller, found, victim), signal.SIGKILL)
        if victim != "start":  # the answer had been sent before
            connection.sendall(b"ok")
        connection.close()
        # It may see the end, or be the first.
        assert found.start.wait(LIMIT_S) in ((-signal.SIGKILL,) if victim == "start" else (0, 1))
    _ends_and_leaves_nothing(caller, bundle, host, made, victim)


def test_a_start_that_takes_longer_than_its_deadline_is_given_up_by_both(caller, bundle, host):
    made = caller.create(bundle(*PROGRAM), "c")
    (machine,) = host.machines()
    host.configure("deadlines", operations={"agent_start_container": 2})
    os.kill(machine, signal.SIGSTOP)
    handles = _handles(caller.pid("c"))
    refused = caller("start", "c", check=1)
    assert b"has not answered, so the container may run; delete it" in refused.stderr
    engines.wait_until(lambda: _handles(caller.pid("c")) == handles, "the stand-in's end")
    os.kill(machine, signal.SIGCONT)
    _ends_and_leaves_nothing(caller, bundle, host, made, "start")


def test_another_user_starts_nothing(caller, bundle):
    caller.create(bundle(*PROGRAM), "c")
    folder = caller.folder / "root/c"
    folder.chmod(0o755)  # as if it were another's fault
    (folder / "start.sock").chmod(0o666)
    script = (
        "import socket, sys; s = socket.socket(socket.AF_UNIX);"
        "s.connect(f'/proc/self/fd/{sys.argv[1]}/start.sock'); print(s.recv(9))"
    )
    with Records(caller.folder / "root").opened("c") as handle:
        words = ("/usr/bin/python3", "-c", script, str(handle))
        done = engines.run(*words, pass_fds=(handle,), user=NOBODY, group=NOBODY, extra_groups=())
        assert done.stdout == b"b''\n"
        assert caller.state("c")["status"] == "created"
        done = engines.run(*words, pass_fds=(handle,))
        assert done.stdout == b"b'ok'\n", "root is served, after that too"
    caller("delete", "--force", "c")
    assert caller.ended("c") == -signal.SIGKILL


def test_a_start_by_the_stand_in_is_recorded_and_told(caller, bundle, host):
    made = caller.create(bundle("sleep", "1000"), "c")
    folder = caller.folder / "root" / "c"
    assert folder.stat().st_mode & 0o777 == 0o700
    assert (folder / "start.sock").is_socket()
    caller("start", "c")
    with socket.socket(socket.AF_UNIX) as again, pytest.raises(ConnectionRefusedError):
        again.connect(str(folder / "start.sock"))
    (row,) = json.loads(host.vc("ps", "--json").stdout)
    assert row["container"]["state"] == "running", row
    assert b"container_started" in host.vc("events", "--json").stdout
    assert b"must be created" in caller("start", "c", check=1).stderr
    caller("delete", "--force", "c")
    made.wait(60)


def test_a_container_starts_without_its_socket_too(caller, bundle):
    made = caller.create(bundle("sleep", "1000"), "c")
    (caller.folder / "root" / "c" / "start.sock").unlink()
    caller("start", "c")
    assert caller.state("c")["status"] == "running"
    caller("delete", "--force", "c")
    made.wait(60)
