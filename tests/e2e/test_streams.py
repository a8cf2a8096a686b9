"""A command in a container whose standard streams, here, are closed, full or go on for ever."""

from __future__ import annotations

import shlex
import subprocess

import pytest

from tests.e2e.conftest import VC

pytestmark = pytest.mark.only("qemu")


def test_streams_that_are_closed_full_or_endless(host, busybox):
    """One machine: each line is a command of its own in it.

    Python's warnings are errors that are printed.
    """
    host.vc(
        "run", "-d", "--name", "p", "--rootfs", str(busybox), "sh", "-c", "echo logged; sleep 1000"
    )
    unreadable = (
        "vc: warning: stdin cannot be read: Bad file descriptor; the command gets end of file\n"
    )
    for command, redirected, expected in (
        ("echo out; echo err >&2", ">&-", (0, "", "err\n")),
        ("echo out; echo err >&2", "2>&-", (0, "out\n", "")),
        ("echo out; exit 3", "<&- >&- 2>&-", (3, "", "")),
        ("cat; echo out", "<&-", (0, "out\n", "")),
        (
            "echo out",
            ">/dev/full",
            (125, "", "vc: error: stdout cannot be written: No space left on device\n"),
        ),
        ("echo err >&2", "2>/dev/full", (125, "", "")),
        ("sleep 0.1; echo out", "< /dev/zero", (0, "out\n", "")),
        ("cat; echo out", "0>/dev/null", (0, "out\n", unreadable)),
    ):
        line = f"{shlex.join(VC)} exec -i p -- sh -c {shlex.quote(command)} {redirected}"
        options = {"env": host.environ(), "capture_output": True, "text": True, "timeout": 60}
        done = subprocess.run(["sh", "-c", line], check=False, **options)
        assert (done.returncode, done.stdout, done.stderr) == expected, (command, redirected)
    host.vc("pod", "stop", "p")
    assert host.vc("logs", "-f", "p").stdout == b"logged\n"
    host.vc("pod", "delete", "p")
    ended = host.vc("run", "-d", "--name", "q", "--rootfs", str(busybox), "echo", "logged")
    assert host.vc("logs", "-f", "q").stdout == b"logged\n", ended
    host.vc("pod", "delete", "--force", "q")
