"""`vc-runtime events` prints until the container ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.e2e.test_runtime_command import (
    bundle,  # noqa: F401 (a fixture)
    caller,  # noqa: F401 (a fixture)
)

pytestmark = [
    pytest.mark.only("qemu"),
    pytest.mark.timeout(600),
    pytest.mark.skipif(os.geteuid() != 0, reason="an ordinary user's bundles are not set up here"),
]
LIMIT = 32 << 20
HOG = "dd if=/dev/zero of=/dev/null bs=100M count=1 2>/dev/null"


def _limited(folder):
    document = json.loads((folder / "config.json").read_text())
    document["linux"]["resources"] = {"memory": {"limit": LIMIT}, "pids": {"limit": 50}}
    (folder / "config.json").write_text(json.dumps(document))
    return folder


@contextmanager
def _following(caller, *words: str) -> Iterator[subprocess.Popen[bytes]]:  # noqa: F811
    """Runs the command; the first line has been printed when it is given."""
    line = (caller.command, "--root", caller.folder / "root", "events", *words, "c")
    with subprocess.Popen([*map(str, line)], stdout=-1, stderr=-1) as process:
        try:
            yield process
        finally:
            process.kill()


def test_each_lack_of_memory_is_told_between_statistics(caller, bundle):  # noqa: F811
    made = caller.create(_limited(bundle("sh", "-c", f"while read l; do {HOG}; done; exit 3")), "c")
    assert b"container not running" in caller("events", "c", check=1).stderr
    caller("start", "c")
    with _following(caller, "--interval", "300ms") as process:
        first, second = (json.loads(process.stdout.readline()) for _ in range(2))
        assert (first["type"], first["id"]) == ("stats", "c")
        data = first["data"]
        assert data["memory"]["usage"]["limit"] == LIMIT
        assert 0 < data["memory"]["usage"]["usage"] <= LIMIT
        assert data["pids"] == {"current": 1, "limit": 50}
        cpu = data["cpu"]["usage"]
        assert 0 < cpu["total"] <= second["data"]["cpu"]["usage"]["total"]
        # The kernel divides the total by samples, and rounds to microseconds.
        assert cpu["total"] == pytest.approx(cpu["user"] + cpu["kernel"], abs=1000)
        for _ in range(2):
            made.stdin.write(b"\n")
            made.stdin.flush()
            while (told := json.loads(process.stdout.readline()))["type"] == "stats":
                pass
            assert told == {"type": "oom", "id": "c"}
        made.stdin.close()
        rest = [json.loads(line)["type"] for line in process.stdout]
        assert set(rest) <= {"stats"}
        assert (process.wait(), process.stderr.read()) == (0, b"")
    assert caller.ended("c") == 3


def test_the_lack_of_memory_that_ends_the_container_is_told(caller, bundle):  # noqa: F811
    made = caller.create(_limited(bundle("sh", "-c", f"read l; exec {HOG}")), "c")
    caller("start", "c")
    with _following(caller, "--interval", "1h") as process:
        assert json.loads(process.stdout.readline())["type"] == "stats"
        made.stdin.write(b"\n")
        made.stdin.flush()
        (told,) = process.stdout.readlines()
        assert json.loads(told) == {"type": "oom", "id": "c"}
        assert (process.wait(), process.stderr.read()) == (0, b"")
    assert caller.ended("c") == -signal.SIGKILL


def test_it_ends_with_its_reader_and_by_signals(caller, bundle):  # noqa: F811
    caller.create(bundle("sleep", "1000"), "c")
    caller("start", "c")
    with _following(caller, "--interval", "1h") as process:
        first = json.loads(process.stdout.readline())
        assert first["data"]["memory"]["usage"]["limit"] == (1 << 64) - 1
        assert first["data"]["pids"] == {"current": 1}
        process.stdout.close()
        assert (process.wait(60), process.stderr.read()) == (0, b"")
    with _following(caller, "--interval", "1h") as process:
        process.stdout.readline()
        process.terminate()
        assert process.wait(60) == -signal.SIGTERM
    with _following(caller, "--interval", "1h") as process:
        process.stdout.readline()
        os.kill(*caller.host.machines(), signal.SIGKILL)
        assert (process.wait(60), process.stdout.read(), process.stderr.read()) == (0, b"", b"")
    assert b"is not a time above 0" in caller("events", "--interval", "0s", "c", check=1).stderr


def test_a_guest_that_is_silent_is_told(caller, bundle):  # noqa: F811
    caller.create(bundle("sleep", "1000"), "c")
    caller("start", "c")
    with _following(caller) as process:
        process.stdout.readline()
        (machine,) = caller.host.machines()
        os.kill(machine, signal.SIGSTOP)
        try:
            assert process.wait(240) == 1
        finally:
            os.kill(machine, signal.SIGCONT)
        (line,) = process.stderr.read().splitlines()
        assert b"vm_close_channel" in line, "QEMU is silent, too, when the channel is given back"
