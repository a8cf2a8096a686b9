"""vc run, as a user types it."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import signal
import subprocess
from pathlib import Path

import pytest

from tests.e2e.conftest import HYPERVISORS

pytestmark = pytest.mark.only("qemu")


@pytest.mark.only(*HYPERVISORS)
def test_the_guests_kernel_answers_not_the_hosts(host):
    told = host.vc("run", "--rootfs", "/", "--", "uname", "-r").stdout.decode().strip()
    guest = json.loads(host.vc("guest", "show", "--json").stdout)
    assert told in guest["description"]
    assert told != platform.release()


@pytest.mark.only(*HYPERVISORS)
def test_streams_stay_apart_and_the_exit_code_is_the_commands(host, busybox):
    done = host.vc(
        "run", "--rootfs", str(busybox), "--", "sh", "-c", "echo out; echo err >&2; exit 7", check=7
    )
    assert (done.stdout, done.stderr) == (b"out\n", b"err\n")


@pytest.mark.only(*HYPERVISORS)
def test_fifty_megabytes_pass_unchanged_both_ways(host, busybox):
    data = os.urandom(50 << 20)
    done = host.vc("run", "--rootfs", str(busybox), "--", "cat", stdin=data)
    assert hashlib.sha256(done.stdout).digest() == hashlib.sha256(data).digest()


@pytest.mark.parametrize("data", [b"", b"no newline", b"\0\xff\n\r\x04"])
def test_odd_bytes_pass_unchanged(host, busybox, data):
    assert host.vc("run", "--rootfs", str(busybox), "--", "cat", stdin=data).stdout == data


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["nosuchprogram"], 127),
        (["/bin/nosuchprogram"], 127),
        (["/etc/passwd/below"], 127),
        (["/etc/passwd"], 126),
        (["/etc"], 126),
        (["sh", "-c", "sh -c 'kill -9 $$'; exit $?"], 137),
    ],
)
def test_exit_codes_are_those_of_a_shell(host, busybox, words, code):
    host.vc("run", "--rootfs", str(busybox), "--", *words, check=code)


def test_options_of_the_process(host, busybox):
    words = [
        "--env",
        "A=b=c",
        "--workdir",
        "/etc",
        "--user",
        "nina",
        "--vcpus",
        "2",
        "--vm-memory",
        "300m",
        "--name",
        "pod7",
    ]
    script = (
        "echo $A; pwd; id; hostname; cat /proc/cpuinfo | busybox grep -c ^processor; echo $HOME"
    )
    told = (
        host.vc("run", "--rootfs", str(busybox), *words, "--", "sh", "-c", script)
        .stdout.decode()
        .splitlines()
    )
    assert told[:2] == ["b=c", "/etc"]
    assert told[2].startswith("uid=1234(nina) gid=5678(staff) groups=")
    assert "4321(extra)" in told[2]
    assert told[3:] == ["pod7", "2", "/home/nina"]


@pytest.mark.parametrize(("suffix", "is_changed"), [("", False), (":rw", True)])
def test_a_rootfs_changes_only_when_asked(host, busybox, suffix, is_changed):
    host.vc("run", "--rootfs", f"{busybox}{suffix}", "--", "touch", "/made")
    assert (busybox / "made").exists() is is_changed


def test_a_read_only_rootfs_refuses(host, busybox):
    done = host.vc("run", "--rootfs", f"{busybox}:ro", "--", "touch", "/made", check=1)
    assert b"Read-only file system" in done.stderr


@pytest.mark.only(*HYPERVISORS)
def test_mounts_of_folders_and_files(host, busybox, tmp_path):
    odd = tmp_path / "a folder, with ünicode"
    odd.mkdir()
    (odd / "in").write_text("from the host")
    single = tmp_path / "single file"
    single.write_text("one")
    words = [
        "--mount",
        f"{odd}:/data",
        "--mount",
        f"{odd}:/fixed:ro",
        "--mount",
        f"{single}:/etc/one",
    ]
    script = (
        "cat /data/in /etc/one; echo back > /data/out; echo no > /fixed/no; echo two > /etc/one; "
        "true"
    )
    done = host.vc("run", "--rootfs", str(busybox), *words, "--", "sh", "-c", script)
    assert done.stdout == b"from the hostone"
    assert b"Read-only file system" in done.stderr
    assert (odd / "out").read_text() == "back\n"
    assert not (odd / "no").exists()
    assert single.read_text() == "two\n"


def test_what_was_written_by_mmap_is_on_the_host(host, tmp_path):
    file = tmp_path / "data" / "file"
    file.parent.mkdir()
    file.write_bytes(b"." * (1 << 20))
    code = (
        "import mmap; f = open('/data/file', 'r+b'); m = mmap.mmap(f.fileno(), 0); "
        "m[5:10] = b'hello'"
    )
    words = ["--mount", f"{file.parent}:/data", "--rootfs", "/"]
    host.vc("run", *words, "--", "/usr/bin/python3", "-c", code)
    assert file.read_bytes()[:12] == b".....hello.."


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--rootfs", "/no/such", "--", "true"], "the rootfs /no/such is not a directory"),
        (["--mount", "/no/such:/x", "--", "true"], "the mount source /no/such does not exist"),
        (["--mount", "nonsense", "--", "true"], "'nonsense' is not SRC:DST"),
        (["--workdir", "relative", "--", "true"], "must be an absolute path"),
        (["--name", "a/b", "--", "true"], "is no pod id"),
    ],
)
def test_what_cannot_be_is_one_line_and_125(host, words, told):
    done = host.vc("run", *words, check=125)
    assert told in done.stderr.decode()
    assert len(done.stderr.decode().splitlines()) == 1


def test_keep_leaves_a_stopped_pod_that_runs_again(host, busybox):
    host.vc(
        "run",
        "--keep",
        "--name",
        "kept",
        "--rootfs",
        str(busybox),
        "--",
        "sh",
        "-c",
        "exit 3",
        check=3,
    )
    (found,) = json.loads(host.vc("pod", "ls", "--json").stdout)
    assert (found["id"], found["state"]) == ("kept", "stopped")
    assert host.machines() == []
    assert re.search(rb"exited \(3\) \d+ s ago", host.vc("ps").stdout)
    assert b"exit code 3" in host.vc("pod", "status", "kept").stdout
    host.vc("pod", "start", "kept")
    assert host.vc("container", "wait", "kept").stdout == b"3\n"
    assert re.search(rb"exited \(3\) \d+ s ago", host.vc("ps").stdout), (
        "while its machine runs, too"
    )
    host.vc("pod", "delete", "kept")


def test_a_taken_name_is_refused_and_harms_nobody(host, busybox):
    host.vc("run", "-d", "--name", "p", "--rootfs", str(busybox), "--", "sleep", "300")
    done = host.vc("run", "--name", "p", "--rootfs", str(busybox), "--", "true", check=125)
    assert b"pod p exists already" in done.stderr
    assert json.loads(host.vc("pod", "status", "p", "--json").stdout)["state"] == "running"
    host.vc("pod", "delete", "p")


def test_ctrl_c_reaches_the_command(host, busybox):
    script = "trap 'echo caught; exit 3' INT; echo ready; while true; do sleep 1; done"
    running = host.start(
        "run", "--rootfs", str(busybox), "--", "sh", "-c", script, stdout=subprocess.PIPE
    )
    assert running.stdout.readline() == b"ready\n"
    running.send_signal(signal.SIGINT)
    out, _ = running.communicate(timeout=60)
    assert (out, running.returncode) == (b"caught\n", 3)


def test_every_signal_that_can_be_forwarded_is(host, busybox):
    catches = 'for one in QUIT USR1 USR2 ALRM 35 37 64; do trap "echo $one" $one; done'
    words = ("run", "--name", "p", "--rootfs", str(busybox), "--", "sh", "-c")
    running = host.start(
        *words, f"{catches}; echo ready; while true; do sleep 1; done", stdout=subprocess.PIPE
    )
    assert running.stdout.readline() == b"ready\n"
    running.send_signal(signal.SIGPIPE)  # which says something of our own output
    for name in ("USR1", "USR1", "USR2", "ALRM", "35", "37", "64", "QUIT"):
        running.send_signal(int(name) if name.isdigit() else signal.Signals[f"SIG{name}"])
        assert running.stdout.readline() == f"{name}\n".encode()
    host.vc("container", "kill", "p", "--signal", "sigrtmin+3")
    assert running.stdout.readline() == b"37\n"
    assert (
        b"there is no signal 'RTMIN+31'"
        in host.vc("container", "kill", "p", "-s", "RTMIN+31", check=125).stderr
    )
    running.send_signal(signal.SIGTERM)  # the second one that asks for an end
    running.communicate(timeout=60)
    assert running.returncode == 130
    assert host.machines() == []


def test_a_plain_command_ends_with_ctrl_c(host, busybox):
    """Also as the first process of its namespace, for which the kernel drops signals that nobody
    catches.
    """
    running = host.start("run", "--name", "p", "--rootfs", str(busybox), "--", "sleep", "300")
    while b"sleep 300" not in host.vc("container", "ps", "p", check=None).stdout:
        assert running.poll() is None
    running.send_signal(signal.SIGINT)
    assert running.wait(timeout=60) == 130


def test_a_second_ctrl_c_ends_the_pod(host, busybox):
    script = "trap '' INT; echo ready; while true; do sleep 1; done"
    running = host.start(
        "run", "--rootfs", str(busybox), "--", "sh", "-c", script, stdout=subprocess.PIPE
    )
    assert running.stdout.readline() == b"ready\n"
    running.send_signal(signal.SIGINT)
    running.send_signal(signal.SIGTERM)
    running.communicate(timeout=60)
    assert running.returncode == 130


def test_a_machine_that_is_killed_meanwhile_is_told_as_that(host, busybox):
    words = ("run", "--rootfs", str(busybox), "--", "sh", "-c", "echo ready; sleep 300")
    running = host.start(*words, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert running.stdout.readline() == b"ready\n"
    (machine,) = host.machines()
    os.kill(machine, signal.SIGKILL)
    _, told = running.communicate(timeout=60)
    assert running.returncode == 125
    assert told.startswith(b"vc: error: pod ")
    assert b": the machine ended: QEMU was killed" in told


def test_nobody_reading_ends_the_command(host, busybox):
    script = "while true; do echo many words that nobody reads; done"
    running = host.start(
        "run", "--rootfs", str(busybox), "--", "sh", "-c", script, stdout=subprocess.PIPE
    )
    assert running.stdout.readline()
    running.stdout.close()
    assert running.wait(timeout=60) == 141


@pytest.mark.only("qemu")
def test_a_boot_that_fails_says_what_the_machine_said(host, busybox):
    host.configure("hypervisor", extra_arguments=["-nonsense"])
    done = host.vc("run", "--rootfs", str(busybox), "--", "true", check=125)
    assert b"-nonsense: invalid option" in done.stderr


def test_the_hosts_root_is_not_changed(host):
    marker = Path("/var/tmp/vc-was-here")
    host.vc("run", "--rootfs", "/", "--", "touch", str(marker), "/etc/vc-was-here")
    assert not marker.exists()
    assert not Path("/etc/vc-was-here").exists()
