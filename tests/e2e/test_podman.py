"""podman, as its users type it, with vc-runtime as its runtime."""

from __future__ import annotations

import json
import os
import platform
import pty
import re
import signal
import subprocess
from pathlib import Path

import pytest

from tests.e2e import engines
from tests.e2e.engines import IMAGE, wait_until
from vc_core.driver_kit import HostProcess

pytestmark = [
    pytest.mark.only("qemu"),
    pytest.mark.timeout(900),
    pytest.mark.skipif(os.geteuid() != 0, reason="podman's rootless mode is not set up here"),
]


@pytest.fixture
def podman(host, busybox):
    with engines.podman(host, busybox) as found:
        yield found


def test_a_container_runs_in_a_machine(podman):
    told = podman.text("run", "--rm", "--network", "none", IMAGE, "uname", "-r")
    assert told != platform.release()
    data = bytes(range(256)) * 4096
    script = "cat; echo end >&2; exit 5"
    done = podman(
        "run", "--rm", "-i", "--network", "none", IMAGE, "sh", "-c", script, stdin=data, check=5
    )
    assert done.stdout == data
    assert done.stderr == b"end\n"
    done = podman("run", "--rm", "--network", "none", IMAGE, "missing", check=127)
    assert b"executable file `missing` not found" in done.stderr
    done = podman("run", "--rm", "--network", "host", IMAGE, "true", check=126)
    assert b"the host's network cannot be that of a machine" in done.stderr
    assert podman.text("ps", "--all", "--quiet") == ""


def test_a_privileged_container_has_all_rights_in_its_machine(podman):
    script = "mount -t tmpfs none /tmp && echo 1 >/proc/sys/vm/overcommit_memory && ls /dev"
    run = ("run", "--rm", "--network", "none")
    asked = ("--privileged", "--device", "/dev/null:/dev/asked")
    told = podman.text(*run, *asked, IMAGE, "sh", "-c", script).split()
    standard = {"null", "zero", "full", "random", "urandom", "tty", "ptmx", "pts", "shm", "mqueue"}
    of_any_kernel = {name for name in ("fuse", "net") if Path("/dev", name).exists()}
    assert set(told) - {"core", "fd", "stdin", "stdout", "stderr"} == standard | of_any_kernel
    assert podman.text(*run, *asked[1:], IMAGE, "ls", "/dev/asked") == "/dev/asked"
    script = "mount -t tmpfs none /tmp"
    podman(*run, IMAGE, "sh", "-c", script, check=1)


def test_a_container_has_a_terminal(podman):
    master, slave = pty.openpty()
    script = "tty; read line; echo got $line; exit 4"
    words = podman.command("run", "--rm", "-it", "--network", "none", IMAGE, "sh", "-c", script)
    process = subprocess.Popen(
        words, stdin=slave, stdout=slave, stderr=slave, env=podman.environment
    )
    os.close(slave)
    told = b""
    while b"/dev/pts/" not in told:
        told += os.read(master, 4096)
    os.write(master, b"word\n")
    while b"got word" not in told:
        told += os.read(master, 4096)
    assert process.wait(240) == 4
    os.close(master)


def test_a_container_is_used_and_stopped(podman, host):
    script = "trap 'echo bye; exit 3' TERM; echo up; while true; do sleep 1; done"
    podman(
        *("run", "-d", "--name", "web", "--network", "none", "--memory", "96m"),
        *("--health-cmd", "ps", "--health-interval", "disable", IMAGE, "sh", "-c", script),
    )
    assert "sleep" in podman.text("exec", "web", "ps")
    assert podman("exec", "-i", "web", "cat", stdin=b"\0data").stdout == b"\0data"
    podman("exec", "web", "sh", "-c", "exit 9", check=9)
    assert b"not found" in podman("exec", "web", "missing", check=127).stderr
    podman("healthcheck", "run", "web")
    record = podman.record("web")
    assert record["pod"] in host.vc("pod", "ls").stdout.decode()
    told = json.loads(podman.text("stats", "--no-stream", "--format", "json", "web"))
    assert told[0]["pids"] != "0"
    podman("pause", "web")
    assert podman.text("inspect", "-f", "{{.State.Status}}", "web") == "paused"
    podman("unpause", "web")
    podman("stop", "--time", "200", "web")
    assert podman.text("wait", "web") == "3"
    assert podman.text("logs", "web") == "up\nbye"
    podman("start", "web")
    podman("kill", "web")
    assert podman.text("wait", "web") == "137"
    podman("rm", "web")
    assert host.machines() == []


def test_a_pod_shares_a_machine_and_publishes_ports(podman, host, tmp_path):
    httpd = "mkdir -p /www; echo served >/www/index.html; exec busybox httpd -f -p 80 -h /www"
    podman("pod", "create", "--name", "pp", "-p", "127.0.0.1:8080:80")
    podman("run", "-d", "--pod", "pp", "--name", "server", IMAGE, "sh", "-c", httpd)
    client = ("run", "--rm", "--pod", "pp", IMAGE, "busybox", "wget", "-q", "-O", "-")
    wait_until(lambda: podman(*client, "http://127.0.0.1/", check=None).stdout == b"served\n")
    fetch = (*podman.entering, "busybox", "wget", "-q", "-O", "-", "http://127.0.0.1:8080/")
    assert engines.run(*fetch).stdout == b"served\n"
    assert len(host.machines()) == 1
    podman("exec", "server", "sh", "-c", "echo shared >/dev/shm/x")
    told = podman("run", "--rm", "--pod", "pp", IMAGE, "cat", "/dev/shm/x").stdout
    assert told == b"shared\n"
    (tmp_path / "pod.yaml").write_bytes(podman("generate", "kube", "pp").stdout)
    podman("pod", "rm", "--force", "--time", "0", "pp")
    podman("play", "kube", str(tmp_path / "pod.yaml"))
    wait_until(lambda: engines.run(*fetch, check=None).stdout == b"served\n")
    podman("play", "kube", "--down", str(tmp_path / "pod.yaml"))
    assert host.machines() == []


@pytest.mark.parametrize("victim", ["stand-in", "machine", "conmon"])
def test_a_killed_process_leaves_nothing(podman, host, victim):
    podman("run", "-d", "--name", "web", "--network", "none", IMAGE, "sleep", "1000")
    record = podman.record("web")
    groups = engines.groups(Path("/run/vc-runtime") / record["id"])
    assert groups != []
    (machine,) = host.machines()
    pids = {
        "stand-in": record["pid"],
        "machine": machine,
        "conmon": int(podman.text("inspect", "-f", "{{.State.ConmonPid}}", "web")),
    }
    os.kill(pids[victim], signal.SIGKILL)
    if victim != "conmon":
        assert podman.text("wait", "web") == "137"
    podman("rm", "--force", "--time", "0", "web")
    assert not HostProcess(record["pid"], record["start_ticks"]).is_alive()
    wait_until(lambda: host.machines() == [], "the end of the machine")
    if victim == "conmon":  # which would have called it
        engines.run(host.folder / "vc-runtime", "delete", "--force", record["id"])
    assert [group for group in groups if group.exists()] == []
    podman("run", "--rm", "--name", "web", "--network", "none", IMAGE, "true")


def test_containers_share_a_pid_namespace(podman, host):
    podman("pod", "create", "--name", "sp", "--network", "none", "--share", "pid,net,ipc,uts")
    podman("run", "-d", "--pod", "sp", "--name", "one", IMAGE, "sleep", "1001")
    told = podman.text("run", "--rm", "--pod", "sp", IMAGE, "ps")
    assert re.search(r"^ +1 .*/bin/sleep 100000$", told, re.MULTILINE)  # the infra container
    assert "sleep 1001" in told
    assert podman.text("exec", "one", "cat", "/proc/1/comm") == "sleep"
    assert podman.text("exec", "one", "sh", "-c", "cat /proc/$$/stat").split()[0] != "1"
    (pid,) = re.findall(r"^ *(\d+) .*sleep 1001$", told, re.MULTILINE)
    podman("run", "--rm", "--pod", "sp", IMAGE, "sh", "-c", f"kill {pid}")
    assert podman.text("wait", "one") == "143"
    podman("pod", "rm", "--force", "--time", "0", "sp")
    podman("run", "-d", "--name", "web", "--network", "none", IMAGE, "sleep", "1002")
    beside = ("run", "--rm", "--pid", "container:web")
    done = podman(*beside, "--network", "none", IMAGE, "true", check=126)
    assert b"whose network must be joined, too" in done.stderr
    told = podman.text(*beside, "--network", "container:web", IMAGE, "cat", "/proc/1/cmdline")
    assert told == "sleep\x001002\x00"
    assert len(host.machines()) == 1
    podman("rm", "--force", "--time", "0", "web")
    assert host.machines() == []
