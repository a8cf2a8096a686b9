"""podman without root: an ordinary user types it, with vc-runtime as its runtime."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.e2e import engines
from tests.e2e.engines import IMAGE, wait_until
from tests.e2e.test_jail_of_users import USER, UserHost, host, tmp_path

_MOST_NAMESPACES = Path("/proc/sys/user/max_user_namespaces")

pytestmark = [
    pytest.mark.only("qemu"),
    pytest.mark.timeout(900),
    pytest.mark.skipif(os.geteuid() != 0, reason="only root makes a user with subordinate ids"),
    pytest.mark.skipif(
        _MOST_NAMESPACES.exists() and _MOST_NAMESPACES.read_text().strip() == "0",
        reason="the kernel gives ordinary users no namespaces (user.max_user_namespaces)",
    ),
]
__all__ = ["host", "tmp_path"]

_NAME = "vc-user"
# What a distribution has: a user with subordinate ids, and a device of the network for all.
_PREPARE = f"""set -e
mkdir etc && for file in passwd group; do cp /etc/$file etc; done
echo {_NAME}:x:{USER}:{USER}::$PWD:/bin/sh >>etc/passwd
echo {_NAME}:x:{USER}: >>etc/group
echo {_NAME}:200000:65536 | tee etc/subuid >etc/subgid
touch /etc/subuid /etc/subgid
for file in etc/*; do mount --bind $file /$file; done
mknod -m 666 tun c 10 200 && mount --bind tun /dev/net/tun
ip link set lo up && echo ready
exec sleep 100000"""


class Rootless(engines.Podman):
    """podman of an ordinary user, in mount and network namespaces of its own."""

    def record(self, name: str) -> dict[str, object]:
        found = self.text("inspect", "-f", "{{.ID}}", name)
        folder = Path(self.environment["XDG_RUNTIME_DIR"]) / "vc-runtime"
        return json.loads((folder / found / "container.json").read_text())


@pytest.fixture
def podman(host: UserHost, busybox: Path) -> Iterator[Rootless]:
    folder = host.folder / "podman"
    folder.mkdir()
    running = folder / "user"
    running.mkdir(mode=0o700)
    environment = {**engines.configured(host, folder), **host.environment}
    # Not those of root that runs the tests.
    environment["XDG_RUNTIME_DIR"] = environment["TMPDIR"] = str(running)
    for path in (folder, running):
        os.chown(path, USER, USER)
    keeper = ("unshare", "--mount", "--net", "--propagation", "private", "sh", "-c", _PREPARE)
    with subprocess.Popen(keeper, stdout=subprocess.PIPE, cwd=folder) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            entering = _entering(process.pid, host.folder)
            found = Rootless(folder, environment, entering)
            with engines.with_image(found, busybox):
                yield found
            found("system", "migrate")  # ends the process that keeps the user namespace
        finally:
            process.kill()


def _entering(pid: int, folder: Path) -> Sequence[str]:
    spaces = [
        f"--{kind}=/proc/{pid}/ns/{file}" for kind, file in (("mount", "mnt"), ("net", "net"))
    ]
    become = ("setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups")
    return ("nsenter", *spaces, f"--wdns={folder}", *become)


def test_an_ordinary_user_runs_containers(podman, host):
    run = ("run", "--rm", "--network", "none")
    assert podman.text(*run, IMAGE, "uname", "-r") != platform.release()
    data = bytes(range(256)) * 1024
    script = "cat; id -u >&2; exit 5"
    done = podman(*run, "-i", IMAGE, "sh", "-c", script, stdin=data, check=5)
    assert (done.stdout, done.stderr) == (data, b"0\n")
    (host.folder / "given").mkdir(0o755)
    (host.folder / "given/word").write_text("of the host\n")
    mount = ("-v", f"{host.folder}/given:/given:ro")
    assert podman.text(*run, *mount, IMAGE, "cat", "/given/word") == "of the host"
    podman(*run, *mount, IMAGE, "touch", "/given/new", check=1)
    assert host.machines() == []


def test_an_ordinary_user_publishes_a_port_and_stops_a_container(podman, host):
    script = (
        "mkdir -p /www; echo served >/www/index.html; trap 'echo bye; exit 3' TERM; echo up;"
        "busybox httpd -f -p 80 -h /www & while true; do sleep 1; done"
    )
    podman("run", "-d", "--name", "web", "-p", "127.0.0.1:8080:80", IMAGE, "sh", "-c", script)
    fetch = (*podman.entering, "busybox", "wget", "-q", "-O", "-", "http://127.0.0.1:8080/")
    wait_until(lambda: engines.run(*fetch, check=None).stdout == b"served\n")
    assert podman("exec", "-i", "web", "cat", stdin=b"\0data").stdout == b"\0data"
    podman("exec", "web", "sh", "-c", "exit 9", check=9)
    assert podman.record("web")["pod"] in host.vc("pod", "ls").stdout.decode()
    owners = {Path(f"/proc/{pid}").stat().st_uid for pid in host.machines()}
    assert owners == {USER}
    podman("stop", "--time", "200", "web")
    assert podman.text("wait", "web") == "3"
    assert podman.text("logs", "web") == "up\nbye"
    assert host.machines() == []
    podman("start", "web")
    podman("kill", "web")
    assert podman.text("wait", "web") == "137"
    podman("rm", "web")
    assert podman.text("ps", "--all", "--quiet") == ""
    wait_until(lambda: host.machines() == [], "the end of the machine")


def test_containers_of_an_ordinary_users_pod_share_a_machine(podman, host):
    podman("pod", "create", "--name", "pp", "--network", "none")
    podman("run", "-d", "--pod", "pp", "--name", "one", IMAGE, "sleep", "1000")
    podman("exec", "one", "sh", "-c", "echo shared >/dev/shm/x")
    assert podman.text("run", "--rm", "--pod", "pp", IMAGE, "cat", "/dev/shm/x") == "shared"
    assert len(host.machines()) == 1
    podman("pod", "rm", "--force", "--time", "0", "pp")
    assert host.machines() == []
