"""Pods that live across commands and processes."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import time

import pytest

from vc_core import ContainerSpec, ProcessSpec, Rootfs, Stdio, StreamName
from vc_core.driver_kit import mountinfo
from vc_core.spec import AgentError, Drive


def _state(host, pod):
    return json.loads(host.vc("pod", "status", pod, "--json").stdout)


@pytest.mark.only("qemu")
def test_a_detached_pod_serves_many_commands_at_once(host, busybox):
    assert (
        host.vc("run", "-d", "--name", "p1", "--rootfs", str(busybox), "--", "sleep", "300").stdout
        == b"p1\n"
    )
    assert b"sleep 300" in host.vc("exec", "p1", "--", "ps").stdout
    running = [
        host.start(
            "exec",
            "p1",
            "--",
            "sh",
            "-c",
            f"cat; exit {number}",
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        for number in range(10)
    ]
    for number, process in enumerate(running):
        out, _ = process.communicate(f"to {number}".encode(), timeout=120)
        assert (out, process.returncode) == (f"to {number}".encode(), number)
    assert host.sockets("p1") == set()
    host.vc("exec", "p1", "--", "nosuchprogram", check=127)
    host.vc("pod", "delete", "p1")


def test_a_pod_through_all_its_states(host, busybox):
    host.vc("pod", "create", "p", "--annotation", "owner=nina")
    host.vc(
        "container", "create", "--name", "a", "--rootfs", str(busybox), "p", "--", "sleep", "300"
    )
    assert _state(host, "p")["state"] == "ready"
    host.vc("pod", "start", "p")
    host.vc(
        "container",
        "create",
        "--name",
        "b",
        "--rootfs",
        str(busybox),
        "p",
        "--",
        "sh",
        "-c",
        "exit 4",
    )
    host.vc("container", "start", "p", "b")
    assert host.vc("container", "wait", "p", "b").stdout == b"4\n"
    found = _state(host, "p")
    assert [(one["id"], one["state"]) for one in found["containers"]] == [
        ("a", "running"),
        ("b", "stopped"),
    ]
    assert found["containers"][1]["exit"]["code"] == 4
    assert found["config"]["annotations"] == {"owner": "nina"}
    host.vc("pod", "pause", "p")
    assert _state(host, "p")["containers"][0]["state"] == "paused"
    assert (
        b"is paused; to execute in it"
        in host.vc("exec", "-c", "a", "p", "--", "true", check=125).stderr
    )
    host.vc("pod", "resume", "p")
    host.vc("exec", "-c", "a", "p", "--", "true")
    rows = json.loads(host.vc("container", "ps", "p", "a", "--json").stdout)
    assert [row["command"] for row in rows] == [["sleep", "300"]]
    host.vc("container", "kill", "p", "a", "--signal", "TERM")
    assert host.vc("container", "wait", "p", "a").stdout == b"143\n"
    host.vc("container", "start", "p", "a")
    host.vc("container", "stop", "p", "a")
    host.vc("container", "delete", "p", "b")
    host.vc("pod", "stop", "p")
    host.vc("pod", "stop", "p")
    assert host.machines() == []
    host.vc("pod", "start", "p")
    assert [(one["id"], one["state"]) for one in _state(host, "p")["containers"]] == [
        ("a", "running")
    ]
    assert b"running" in host.vc("ps").stdout
    host.vc("pod", "pause", "p")
    host.vc("pod", "delete", "p")


def test_a_folder_is_added_to_a_running_pod_and_taken_away(host, busybox, tmp_path):
    host.vc("pod", "create", "p")
    host.vc("pod", "start", "p")
    (tmp_path / "data").mkdir()
    for turn in range(3):
        words = ["--rootfs", str(busybox), "--mount", f"{tmp_path / 'data'}:/data"]
        host.vc("container", "create", "--name", "c", *words, "p", "--", "touch", f"/data/{turn}")
        host.vc("container", "start", "p", "c")
        assert host.vc("container", "wait", "p", "c").stdout == b"0\n"
        host.vc("container", "delete", "p", "c")
    assert sorted(path.name for path in (tmp_path / "data").iterdir()) == ["0", "1", "2"]
    host.vc("pod", "delete", "p")


def test_what_another_process_plugs_disturbs_no_open_stream(host, busybox, tmp_path):
    host.vc("run", "-d", "--name", "p", "--rootfs", str(busybox), "--", "sleep", "300")
    script = "trap 'echo bye; exit 9' INT; echo on; while true; do sleep 1; done"
    open_one = host.start("exec", "p", "--", "sh", "-c", script, stdout=subprocess.PIPE)
    assert open_one.stdout.readline() == b"on\n"
    (tmp_path / "data").mkdir()
    words = ["--rootfs", str(busybox), "--mount", f"{tmp_path / 'data'}:/data"]
    host.vc("container", "create", "--name", "second", *words, "p", "--", "true")
    open_one.send_signal(signal.SIGINT)
    out, _ = open_one.communicate(timeout=60)
    assert (out, open_one.returncode) == (b"bye\n", 9)
    host.vc("pod", "delete", "p")


def test_a_machine_killed_behind_our_back_is_told_and_cleaned(host, busybox):
    host.vc("run", "-d", "--name", "p", "--rootfs", str(busybox), "--", "sleep", "300")
    (machine,) = host.machines()
    os.kill(machine, signal.SIGKILL)
    found = _state(host, "p")
    assert found["state"] == "stopped"
    assert found["reason"].startswith("the machine ended: QEMU was killed or crashed")
    host.vc("pod", "start", "p")
    host.vc("exec", "p", "--", "true")
    host.vc("pod", "delete", "p")


def test_a_machine_ended_by_a_signal_says_so(host, busybox):
    host.vc("run", "-d", "--name", "p", "--rootfs", str(busybox), "--", "sleep", "300")
    (machine,) = host.machines()
    os.kill(machine, signal.SIGTERM)
    while host.machines():
        os.sched_yield()
    assert "ended by a signal" in _state(host, "p")["reason"]
    host.vc("pod", "delete", "p")


@pytest.mark.parametrize("delay_s", [0.2, 0.35, 0.5, 0.8, 1.5, 2.5, 4])
def test_vc_killed_at_any_moment_leaves_a_pod_that_can_be_deleted(host, busybox, delay_s):
    running = host.start("run", "--name", "p", "--rootfs", str(busybox), "--", "sleep", "300")
    with pytest.raises(subprocess.TimeoutExpired):
        running.wait(delay_s)
    running.kill()
    running.wait()
    names = [found["id"] for found in json.loads(host.vc("pod", "ls", "--json").stdout)]
    if names:
        assert names == ["p"]
        host.vc("pod", "delete", "p")
    else:
        assert delay_s < 2, "the pod must be listed once it was made"


def test_a_reboot_leaves_pods_that_start_again(host, busybox):
    host.vc("run", "-d", "--name", "p", "--rootfs", str(busybox), "--", "sleep", "300")
    for machine in host.machines():
        os.kill(machine, signal.SIGKILL)
    while host.machines():
        os.sched_yield()
    for mount in reversed(mountinfo.below(host.folder / "run")):  # a reboot takes all mounts along
        subprocess.run(["umount", "--lazy", mount.point], check=True)
    subprocess.run(["rm", "-rf", "--one-file-system", str(host.folder / "run")], check=True)
    found = _state(host, "p")
    assert (found["state"], found["reason"]) == ("stopped", "the host was rebooted")
    host.vc("pod", "start", "p")
    host.vc("exec", "p", "--", "true")
    host.vc("pod", "delete", "p")


@pytest.mark.only("qemu")
def test_what_a_killed_client_left_in_the_machine_is_swept(host, busybox):
    host.vc("run", "-d", "--name", "p", "--rootfs", str(busybox), "--", "sleep", "300")
    doomed = host.start("exec", "p", "--", "sh", "-c", "echo on; sleep 300", stdout=subprocess.PIPE)
    assert doomed.stdout.readline() == b"on\n"
    doomed.kill()
    doomed.communicate()
    assert len(host.sockets("p")) == 1
    host.vc("exec", "p", "--", "true")
    assert host.sockets("p") == set()
    host.vc("pod", "delete", "p")


async def test_the_api_runs_pods(host, busybox):
    async with host.runtime() as runtime, runtime.pod("api") as pod:
        result = await pod.run(
            "sh", "-c", "cat; echo bad >&2; exit 3", stdin=b"good", rootfs=busybox
        )
        assert (result.exit_code, result.stdout, result.stderr) == (3, b"good", b"bad\n")
        spec = ContainerSpec(
            id="c",
            rootfs=Rootfs(path=busybox),
            process=ProcessSpec(args=("sh", "-c", "echo 1; read x; echo $x"), env=("PATH=/bin",)),
            mounts=(),
            stdio=Stdio.PIPES,
        )
        process = await (await pod.create_container(spec)).start()
        seen = b""
        async for name, data in process.output():
            assert name is StreamName.STDOUT
            seen += data
            if seen == b"1\n":
                await process.write(b"two\n")
        assert seen == b"1\ntwo\n"
        assert (await process.wait()).code == 0


@pytest.mark.only("qemu")
async def test_pods_run_side_by_side_in_one_process(host, busybox):
    async def one(runtime, number: int) -> bytes:
        async with runtime.pod(f"p{number}") as pod:
            return (await pod.run("hostname", rootfs=busybox)).stdout

    async with host.runtime() as runtime:
        began = time.monotonic()
        told = await asyncio.gather(*(one(runtime, number) for number in range(3)))
        assert told == [b"p0\n", b"p1\n", b"p2\n"], time.monotonic() - began


async def test_the_process_tells_when_its_machine_dies(host, busybox):
    async with host.runtime() as runtime, runtime.pod("p") as pod:
        spec = ContainerSpec(
            id="c",
            rootfs=Rootfs(path=busybox),
            process=ProcessSpec(args=("sleep", "300"), env=("PATH=/bin",)),
        )
        container = await pod.create_container(spec)
        process = await container.start()
        other = await container.exec(spec.process)
        await other.streams()
        asked = [asyncio.create_task(work) for work in (process.wait(), other.communicate())]
        (machine,) = host.machines()
        os.kill(machine, signal.SIGKILL)
        for answer in asked:
            with pytest.raises(AgentError, match="the machine ended: QEMU was killed"):
                await answer


@pytest.mark.only("qemu")
async def test_a_process_has_a_terminal_of_the_size_that_was_asked_for(host, busybox):
    async with host.runtime() as runtime, runtime.pod("p") as pod:
        first = ContainerSpec(
            id="c",
            rootfs=Rootfs(path=busybox),
            process=ProcessSpec(args=("sleep", "300"), env=("PATH=/bin",)),
        )
        container = await pod.create_container(first)
        await container.start()
        script = "busybox tty; busybox stty size; read x; echo got $x; busybox stty size"
        spec = ProcessSpec(
            args=("sh", "-c", script), env=("PATH=/bin",), terminal=True, rows=33, columns=77
        )
        process = await container.exec(spec)
        seen = b""
        async for _, data in process.output():
            seen += data
            if seen.endswith(b"33 77\r\n"):
                await process.resize(11, 22)
                await process.write(b"word\n")
        assert seen.split() == [b"/dev/pts/0", b"33", b"77", b"word", b"got", b"word", b"11", b"22"]
        assert (await process.wait()).code == 0


async def test_a_disk_comes_and_goes_and_its_place_is_free_again(host, tmp_path):
    image = tmp_path / "disk.raw"
    image.write_bytes(bytes(1 << 20))
    async with (
        host.runtime() as runtime,
        runtime.pod("p") as pod,
        pod._sessions.open(exclusive=True) as session,
    ):
        hooks, ref = session.hooks, session.pod
        for _ in range(3):
            plugged = await hooks.vm_plug(pod=ref, device=Drive(id="drive-a", path=image))
            assert (plugged.driver, plugged.address) == ("scsi", "0:0")
            await hooks.vm_unplug(pod=ref, plugged=plugged)
            await hooks.vm_unplug(pod=ref, plugged=plugged)


def test_the_pid_that_is_told_is_the_machines(host, busybox):
    host.vc("run", "-d", "--name", "p", "--rootfs", str(busybox), "--", "sleep", "99")
    pid = _state(host, "p")["pid"]
    assert host.machines() == [pid]
    host.vc("pod", "stop", "p", "--grace", "0")
    assert _state(host, "p")["pid"] == 0
    host.vc("pod", "delete", "p")


def test_a_machine_that_hangs_holds_no_call_past_its_deadline(host, busybox):
    """QEMU is stopped as a whole: neither its monitor nor its guest answers."""
    host.configure("deadlines", default=3, stop=1)
    host.vc("run", "-d", "--name", "p", "--rootfs", str(busybox), "--", "sleep", "99")
    os.kill(_state(host, "p")["pid"], signal.SIGSTOP)
    for words in (
        ["exec", "p", "--", "true"],
        ["container", "stop", "p"],
        ["container", "ps", "p"],
    ):
        began = time.monotonic()
        told = host.vc(*words, check=125).stderr
        assert b"within 3 s" in told or b"QEMU's monitor does not answer" in told
        assert time.monotonic() - began < 30
    assert json.loads(host.vc("pod", "ls", "--json").stdout)[0]["state"] == "running"
    host.vc("pod", "delete", "p")


@pytest.mark.only("qemu")
async def test_a_client_that_hangs_up_in_the_middle_harms_nobody(host, busybox):
    """Its port is there until somebody sweeps it; an agent that tries to write to it must not do so
    for ever.
    """
    hello = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
    async with host.runtime() as runtime, runtime.pod("p") as pod:
        async with pod._sessions.open(exclusive=True) as session:
            channel = await session.hooks.vm_open_channel(pod=session.pod, name="vc.agent.rude")
        with socket.socket(socket.AF_UNIX) as rude:
            rude.connect(channel.address)
            rude.sendall(hello)
            assert rude.recv(1)
        assert (await pod.run("/bin/echo", "here", rootfs=busybox)).stdout == b"here\n"
        before, began = (await pod.stats()).cpu_ns, time.monotonic_ns()
        for _ in range(4):
            host.vc("pod", "ls")  # some time goes by, in which nobody asks anything of the guest
        assert (await pod.stats()).cpu_ns - before < (time.monotonic_ns() - began) / 4
