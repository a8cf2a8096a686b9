"""What pods use, as people and programs see it; and what a shell completes."""

from __future__ import annotations

import json
import os
import subprocess

import pexpect
import pytest

from tests.e2e.conftest import VC


@pytest.mark.only("qemu")
def test_use_is_told_as_a_line_of_json_for_each_sample(host):
    host.configure("deadlines", view=60)  # a host of tests is slower than a person would wait for
    host.vc("run", "-d", "--name", "busy", "--", "sh", "-c", "while :; do :; done")
    host.vc("run", "-d", "--name", "idle", "--memory", "64m", "--", "sleep", "99")
    with host.start("stats", "--json", stdout=subprocess.PIPE) as streaming:
        # A guest that has just booted is not idle yet, and a host may have no time for a busy one.
        for _ in range(60):
            busy, idle = json.loads(streaming.stdout.readline())
            if busy["cpu_percent"] > 10 * idle["cpu_percent"]:
                break
        streaming.terminate()
    assert busy["cpu_percent"] > 10 * idle["cpu_percent"]
    (line,) = host.vc("stats", "--json", "--no-stream").stdout.splitlines()
    busy, idle = json.loads(line)
    assert (busy["pod"], idle["pod"]) == ("busy", "idle")
    assert busy["host_bytes"] > 1 << 20
    assert (idle["containers"], idle["processes"], idle["limit_bytes"]) == (1, 1, 64 << 20)
    (line,) = host.vc("stats", "--json", "--no-stream", "idle").stdout.splitlines()
    assert [one["pod"] for one in json.loads(line)] == ["idle"]
    head, row = host.vc("stats", "idle").stdout.decode().splitlines()
    assert head.split()[:3] == ["POD", "CTRS", "CPU"]
    assert row.split()[0] == "idle"
    assert b"no pod none" in host.vc("stats", "none", check=125).stderr

    with host.start("stats", "--json", "--interval", "0.2", stdout=subprocess.PIPE) as streaming:
        assert [len(json.loads(streaming.stdout.readline())) for _ in range(3)] == [2, 2, 2]
        host.vc("pod", "delete", "--force", "busy")
        while len(json.loads(streaming.stdout.readline())) != 1:
            pass
        streaming.terminate()
    host.vc("pod", "delete", "--force", "idle")


@pytest.mark.only("qemu")
@pytest.mark.parametrize("terminal", ["xterm-256color", "dumb"])
def test_use_is_told_at_terminals_of_80_columns(host, busybox, terminal):
    host.vc("run", "-d", "--name", "idle", "--rootfs", str(busybox), "sleep", "99")
    environ = {**host.environ(), "TERM": terminal}
    shown = pexpect.spawn(VC[0], [*VC[1:], "stats"], env=environ, timeout=60, dimensions=(20, 80))
    shown.expect_exact("GUEST MEMORY")
    shown.expect_exact("idle")
    shown.expect_exact("idle")
    shown.sendintr()
    shown.expect(pexpect.EOF)
    shown.close()
    assert shown.exitstatus == 130
    host.vc("pod", "delete", "--force", "idle")


@pytest.mark.only("qemu")
def test_names_are_completed_live(host):
    host.vc("pod", "create", "idle")
    completed = {
        **host.environ(),
        "_VC_COMPLETE": "bash_complete",
        "COMP_WORDS": "vc exec id",
        "COMP_CWORD": "2",
    }
    told = subprocess.run(VC, env=completed, capture_output=True, text=True, check=False).stdout
    assert told == "plain,idle\n"
    host.vc("pod", "delete", "idle")


@pytest.mark.only("qemu")
def test_each_shell_gets_a_script_that_it_can_read(host):
    scripts = {shell: host.vc("completion", shell).stdout for shell in ("bash", "zsh", "fish")}
    assert all(b"_VC_COMPLETE" in script for script in scripts.values())
    subprocess.run(["bash", "-n"], input=scripts["bash"], check=True, env=os.environ)
