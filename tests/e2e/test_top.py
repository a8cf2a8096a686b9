"""vc top at a real terminal."""

from __future__ import annotations

import json
import os
import signal
import sys

import pexpect
import pytest

pytestmark = pytest.mark.only("qemu")


def test_a_running_pod_its_log_and_its_end_are_on_the_screen(host, busybox):
    script = "echo on the screen; sleep 1000"
    host.vc("run", "-d", "--name", "shown", "--rootfs", str(busybox), "sh", "-c", script)
    words = ["-P", "-m", "vc_core", "top"]
    screen = pexpect.spawn(
        sys.executable,
        words,
        env=host.environ(),
        dimensions=(40, 140),
        timeout=60,
        encoding="utf-8",
    )
    try:
        screen.expect("shown")
        screen.expect("running")
        screen.expect("on the screen")
        host.vc("pod", "delete", "--force", "shown")
        screen.expect("pod_deleted")
        screen.send("q")
        screen.expect(pexpect.EOF)
        screen.wait()
        assert screen.exitstatus == 0
    finally:
        screen.close(force=True)


def test_a_hung_guest_keeps_neither_the_screen_nor_events_from_ending(host, busybox):
    """Nor a second pod from being shown."""
    for name in ("hung", "good"):
        host.vc("run", "-d", "--name", name, "--rootfs", str(busybox), "sleep", "1000")
    machine = json.loads(host.vc("pod", "status", "--json", "hung").stdout)["pid"]
    os.kill(machine, signal.SIGSTOP)
    for words, shows, code in (
        (["top"], ["no answer", "good"], 0),
        (["events", "-f"], ["pod_started", "pod_started"], 130),
    ):
        screen = pexpect.spawn(
            sys.executable,
            ["-P", "-m", "vc_core", *words],
            env=host.environ(),
            dimensions=(40, 140),
            timeout=60,
            encoding="utf-8",
        )
        try:
            for text in shows:
                screen.expect(text)
            if words[0] == "events":  # which goes on while the hung one is asked
                host.vc("pod", "delete", "--force", "good")
                screen.expect("pod_deleted +good")
            screen.sendintr()
            screen.expect(pexpect.EOF, timeout=20)
            screen.wait()
            assert screen.exitstatus == code
        finally:
            screen.close(force=True)
    host.vc("pod", "delete", "--force", "hung")


def test_without_textual_the_remedy_is_named(host, tmp_path):
    (tmp_path / "textual.py").write_text("raise ImportError('no textual here')")
    environ = {**host.environ(), "PYTHONPATH": str(tmp_path)}
    screen = pexpect.spawn(
        sys.executable, ["-P", "-m", "vc_core", "top"], env=environ, timeout=60, encoding="utf-8"
    )
    screen.expect(
        r"vc top needs textual \(no textual here\); run: "
        r"pip install --find-links .make/wheels 'virtcontainers\[top\]'"
    )
    screen.expect(pexpect.EOF)
    screen.wait()
    assert screen.exitstatus == 125
