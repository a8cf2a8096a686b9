"""The jail of an ordinary user: all layers, hot-plugged folders, snapshots, and somebody who has
broken into QEMU.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import VC, Host, new_host
from tests.e2e.test_jail import pytestmark as _of_jail
from tests.e2e.test_jail import results, scene, status

pytestmark = [
    *_of_jail,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes another user and traces them"),
]
__all__ = ["scene"]

USER = 65532
_BECOME = ("setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups", "--no-new-privs")


class UserHost(Host):
    """A host whose commands an ordinary user types."""

    def vc(
        self, *args: str, stdin: bytes = b"", check: int | None = 0
    ) -> subprocess.CompletedProcess[bytes]:
        done = subprocess.run(
            [*_BECOME, *VC, *args],
            input=stdin,
            capture_output=True,
            timeout=240,
            env=self.environ(),
            check=False,
        )
        assert check is None or done.returncode == check, (args, done.stderr.decode())
        return done


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """A folder that the user can reach, which those of pytest are not."""
    folder = Path(tempfile.mkdtemp(prefix="vc-user-", dir="/tmp"))
    os.chown(folder, USER, USER)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def host(tmp_path, hypervisor) -> Iterator[UserHost]:
    made = new_host(tmp_path, hypervisor)
    environment = {"HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path)}
    found = UserHost(tmp_path, made.settings, environment)
    found.config_file.chmod(0o644)
    yield found
    left = found.residue()
    for pid in found.machines():
        os.kill(pid, 9)
    assert left == []


def test_in_the_jail_of_a_user_all_that_somebody_tries_fails(host, scene):
    found = results(scene, "strict")
    assert {name: answer for name, answer in found.items() if answer == "done"} == {}
    told = status(host, "theirs0")["confinement"]
    assert {"namespaces", "root", "capabilities", "seccomp", "limits", "template"} <= set(
        told["layers"]
    )


def test_folders_that_are_plugged_later_and_snapshots_work_in_the_jail_of_a_user(host, tmp_path):
    host.configure("hypervisor", jail="strict")
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(name)
    first = ("-v", f"{tmp_path}/one:/m", "--", "sleep", "1000")
    host.vc("run", "-d", "--start", "template", "--name", "p", *first)
    later = ("--mount", f"{tmp_path}/two:/m", "--name", "later", "p", "--", "sleep", "1000")
    host.vc("container", "create", *later)
    host.vc("container", "start", "p", "later")
    read = ("--", "cat", "/m/file")
    assert host.vc("exec", "-c", "p", "p", *read).stdout == b"one"
    assert host.vc("exec", "-c", "later", "p", *read).stdout == b"two"
    host.vc("pod", "snapshot", "p", "saved")
    host.vc("pod", "restore", "saved", "--name", "again")
    assert host.vc("exec", "-c", "later", "again", *read).stdout == b"two"
    host.vc("pod", "delete", "--force", "again")
    host.vc("pod", "delete", "--force", "p")
    assert json.loads(host.vc("pod", "ls", "--json").stdout) == []


@pytest.mark.parametrize("start", ["cold", "template"])
def test_a_file_system_of_the_kernel_in_a_closed_folder_stays_hidden(host, tmp_path, start):
    """An image builder of somebody else has mounted /proc where this user may not look."""
    host.configure("hypervisor", jail="strict")
    closed = tmp_path / "mine/closed"
    (closed / "tree/proc").mkdir(parents=True)
    closed.chmod(0o700)
    proc = str(closed / "tree/proc")
    subprocess.run(["mount", "-t", "proc", "proc", proc], check=True)
    try:
        volume = ("-v", f"{tmp_path}/mine:/m", "--", "sleep", "1000")
        host.vc("run", "-d", "--start", start, "--name", "p", *volume)
        closed.chmod(0o755)
        assert host.vc("exec", "p", "--", "ls", "-A", "/m/closed").stdout == b""
        host.vc("pod", "delete", "--force", "p")
    finally:
        subprocess.run(["umount", "--lazy", proc], check=True)


def test_machines_of_a_users_pool_are_in_the_jail_before_and_after_they_are_taken(host):
    host.configure("hypervisor", jail="strict")
    host.vc("pool", "start", "--size", "1")
    try:
        while not json.loads(host.vc("pool", "ls", "--json").stdout):
            os.sched_yield()
        (waiting,) = host.machines()
        before = Path(f"/proc/{waiting}/status").read_text()
        assert "Seccomp:\t2" in before
        assert "CapEff:\t0000000000000000" in before
        assert f"Uid:\t{USER}" in before
        namespaces = ("mnt", "pid", "net", "ipc", "user")
        for name in namespaces:
            own = Path(f"/proc/{waiting}/ns/{name}").readlink()
            assert own != Path(f"/proc/self/ns/{name}").readlink(), name
        host.vc("run", "-d", "--start", "pool", "--name", "p", "--", "sleep", "1000")
        told = status(host, "p")
        assert told["pid"] == waiting, "it was taken from the pool"
        assert told["confinement"]["missing"] == []
        assert {"namespaces", "root", "capabilities", "seccomp", "limits", "template"} <= set(
            told["confinement"]["layers"]
        )
        after = Path(f"/proc/{waiting}/status").read_text()
        for field in ("Uid", "CapEff", "Seccomp", "NoNewPrivs"):
            assert _field(after, field) == _field(before, field)
        host.vc("pod", "delete", "--force", "p")
    finally:
        host.vc("pool", "stop")
    assert host.machines() == []


def _field(text: str, name: str) -> list[str]:
    return text.partition(f"{name}:")[2].split("\n")[0].split()
