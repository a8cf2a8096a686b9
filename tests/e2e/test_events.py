"""What has happened, and what is: events, inspect, doctor."""

from __future__ import annotations

import json
import os
import signal
import subprocess

import pytest

pytestmark = pytest.mark.only("qemu")


def test_events_tell_what_ends_by_itself_as_it_happens(host, busybox):
    follower = host.start("events", "-f", "--json", stdout=subprocess.PIPE)
    root = ["--rootfs", str(busybox)]
    host.vc("run", "-d", "--name", "one", *root, "--", "sh", "-c", "sleep 1; exit 3")
    host.vc("run", "-d", "--name", "two", *root, "--", "sleep", "1000")

    def until(event: str, pod: str) -> dict:
        for line in follower.stdout:
            found = json.loads(line)
            if (found["event"], found["pod"]) == (event, pod):
                return found
        raise AssertionError(event)

    assert until("container_stopped", "one")["exit_code"] == 3
    (machine,) = [
        one["pid"]
        for one in json.loads(host.vc("pod", "ls", "--json").stdout)
        if one["id"] == "two"
    ]
    os.kill(machine, signal.SIGKILL)
    assert "the machine ended" in until("pod_stopped", "two")["reason"]
    host.vc("pod", "delete", "--force", "one", "two")
    until("pod_deleted", "two")
    follower.send_signal(signal.SIGINT)
    follower.communicate(timeout=60)
    told = host.vc("events", "one").stdout.decode()
    assert [line.split()[1] for line in told.splitlines()] == [
        "pod_created",
        "container_created",
        "container_started",
        "pod_started",
        "container_stopped",
        "pod_stopped",
        "pod_deleted",
    ]
    assert host.vc("events", "--since", "1h", "none").stdout == b""


def test_inspect_tells_all_of_pods_images_and_volumes(host, busybox):
    host.vc("image", "build", "busybox")
    host.vc("volume", "create", "kept")
    host.vc("pod", "create", "p")
    found = json.loads(host.vc("inspect", "p", "busybox", "kept").stdout)
    assert [found[0]["config"]["id"], found[1]["names"], found[2]["name"]] == [
        "p",
        ["busybox:latest"],
        "kept",
    ]
    done = host.vc("inspect", "none", check=125)
    assert (
        done.stderr == b"vc: error: no pod, image or volume none; "
        b"'vc pod ls', 'vc image ls' and 'vc volume ls' list them\n"
    )
    host.vc("pod", "delete", "p")


def test_doctor_mends_what_it_may(host, tmp_path):
    host.configure("agent.grpc", cache=tmp_path / "cache")
    found = json.loads(host.vc("doctor", "--json").stdout)
    assert all(one["fix"].split()[0] in ("vc", "apt-get") for one in found if one["fix"])
    host.environment["PATH"] = str(tmp_path)  # nothing is there
    done = host.vc("doctor", check=125)
    assert (
        b"bad  QEMU: qemu-system-x86_64 is missing; install the package qemu-system-x86"
        in done.stdout
    )
    (tmp_path / "apt-get").write_text("#!/bin/sh\necho asked for $*\n")
    (tmp_path / "apt-get").chmod(0o755)
    done = host.vc("doctor", "--fix", check=125)
    assert b"== apt-get install -y --no-install-recommends qemu-system-x86\n" in done.stderr
    assert b"asked for install -y --no-install-recommends qemu-system-x86" in done.stderr
