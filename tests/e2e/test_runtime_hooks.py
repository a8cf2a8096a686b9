"""Hooks of all kinds with `vc-runtime`, on real machines."""

from __future__ import annotations

import json
import os
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest
from vc_runtime.records import pod_id_of

from tests.e2e.test_runtime_command import bundle, caller

__all__ = ["bundle", "caller"]  # the fixtures

pytestmark = [
    pytest.mark.only("qemu"),
    pytest.mark.timeout(600),
    pytest.mark.skipif(os.geteuid() != 0, reason="an ordinary user's bundles are not set up here"),
]
AT_CREATE = ("prestart", "createRuntime", "createContainer")
PATH = ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"]


def _with_hooks(folder: Path, **scripts: str) -> Path:
    """Adds hooks to a bundle, each a script of a shell (of the container's, for startContainer)."""
    file = folder / "config.json"
    document = json.loads(file.read_text())
    document["hooks"] = {
        kind: [{"path": "/bin/sh", "args": ["sh", "-c", script], "env": PATH}]
        for kind, script in scripts.items()
    }
    file.write_text(json.dumps(document))
    return folder


def _names(namespace: str) -> list[str]:
    told = subprocess.run(
        ["nsenter", f"--net={namespace}", "ip", "-json", "link"], capture_output=True, check=True
    )
    return [one["ifname"] for one in json.loads(told.stdout)]


def _told(notes: Path) -> list[tuple[str, dict[str, Any]]]:
    pairs = [line.split(" ", 1) for line in notes.read_text().splitlines()]
    return [(kind, json.loads(state)) for kind, state in pairs]


def test_hooks_of_all_kinds_run_at_their_times(caller, bundle, tmp_path):
    notes = tmp_path / "notes"
    on_host = {
        kind: f'echo "{kind} $(cat)" >> {notes}' for kind in (*AT_CREATE, "poststart", "poststop")
    }
    in_guest = 'echo "startContainer $(cat)" > /told; uname -r >> /told; pwd >> /told'
    folder = bundle("cat", "/told")
    made = caller.create(_with_hooks(folder, startContainer=in_guest, **on_host), "with-hooks")
    pid = caller.pid("with-hooks")
    assert [kind for kind, _ in _told(notes)] == list(AT_CREATE)
    assert caller.state("with-hooks")["status"] == "created"
    caller("start", "with-hooks")
    kind, _, state = made.stdout.readline().decode().partition(" ")
    assert kind == "startContainer"
    assert json.loads(state)["id"] == pod_id_of("with-hooks")
    release, place = made.stdout.read().decode().splitlines()
    assert (release != os.uname().release, place) == (True, "/"), release
    assert caller.ended("with-hooks") == 0
    assert [kind for kind, _ in _told(notes)] == [*AT_CREATE, "poststart"]
    caller("delete", "with-hooks")
    told = _told(notes)
    assert [kind for kind, _ in told] == [*AT_CREATE, "poststart", "poststop"]
    assert [state["status"] for _, state in told] == [*["creating"] * 3, "running", "stopped"]
    assert [state["pid"] for _, state in told] == [*[pid] * 4, 0]
    assert {state["id"] for _, state in told} == {"with-hooks"}
    assert {state["bundle"] for _, state in told} == {str(folder)}
    assert set(json.loads(caller("features").stdout)["hooks"]) == {*on_host, "startContainer"}


def test_what_was_only_created_is_told_of_its_end(caller, bundle, tmp_path):
    notes = tmp_path / "notes"
    folder = _with_hooks(bundle("sleep", "1000"), poststop=f'echo "poststop $(cat)" >> {notes}')
    caller.create(folder, "c")
    (folder / "config.json").unlink()  # the hooks are those of the creation
    caller("delete", "c")
    assert [(kind, state["status"]) for kind, state in _told(notes)] == [("poststop", "stopped")]


def test_a_hook_gives_the_pod_its_network_as_dockers_does(caller, bundle, tmp_path, host):
    script = f"""
        pid=$(sed 's/.*"pid": *\\([0-9]*\\).*/\\1/'); ip -o link > {tmp_path}/outside
        ip link add vc-hook type veth peer name eth0 netns $pid
        ip addr add 203.0.113.1/24 dev vc-hook; ip link set vc-hook up
        nsenter --net=/proc/$pid/ns/net sh -c 'ip addr add 203.0.113.5/24 dev eth0
        ip link set eth0 up; ip link set lo up'"""
    look = "ip -o -4 addr show dev eth0; nc 203.0.113.1 8099"
    folder = _with_hooks(bundle("busybox", "sh", "-c", look), prestart=script)
    made = caller.create(folder, "c")
    namespace = f"/proc/{caller.pid('c')}/ns/net"
    assert "eth0" in _names(namespace)
    assert Path(namespace).readlink() != Path("/proc/self/ns/net").readlink()
    host_links = {line.split(": ")[1] for line in (tmp_path / "outside").read_text().splitlines()}
    assert "lo" in host_links, "the hook itself runs in the namespace of the host"
    with socket.create_server(("203.0.113.1", 8099)) as server:
        server.settimeout(240)
        caller("start", "c")
        with server.accept()[0] as connection:
            connection.sendall(b"answered")
    told = made.stdout.read().decode()
    assert caller.ended("c") == 0, told
    assert "203.0.113.5/24" in told
    assert "answered" in told
    caller("delete", "c")
    links = subprocess.run(["ip", "link", "show", "vc-hook"], capture_output=True, check=False)
    assert links.returncode != 0, "it has gone with the namespace"


def test_a_hook_without_a_network_leaves_the_pod_none(caller, bundle):
    folder = _with_hooks(bundle("busybox", "ip", "-o", "link"), createRuntime="true")
    made = caller.create(folder, "c")
    assert _names(f"/proc/{caller.pid('c')}/ns/net") == ["lo"]
    caller("start", "c")
    assert b"eth0" not in made.stdout.read()


def test_mounts_of_a_hook_do_not_show_on_the_host(caller, bundle, tmp_path):
    (tmp_path / "point").mkdir()
    script = f"mount -t tmpfs hook {tmp_path}/point && echo yes > {tmp_path}/point/mounted"
    caller.create(_with_hooks(bundle("true"), createContainer=script), "c")
    assert list((tmp_path / "point").iterdir()) == []
    assert f"{tmp_path}/point" not in Path("/proc/self/mountinfo").read_text()


@pytest.mark.parametrize("kind", AT_CREATE)
def test_one_that_fails_or_hangs_stops_the_creation(caller, bundle, tmp_path, host, kind):
    see = (
        f"pid=$(grep -o '\"pid\": *[0-9]*' | grep -o '[0-9]*'); echo $pid > {tmp_path}/seen;"
        f"readlink /proc/$pid/ns/net >> {tmp_path}/seen;"
    )
    for script, timeout, words in (
        ("echo no licence; exit 3", 0, "hook /bin/sh ended with 3: no licence"),
        ("sleep 1000 & sleep 1000", 1, "hook /bin/sh did not end within 1 s and was killed"),
    ):
        stopped = f"cat > {tmp_path}/stopped"
        folder = _with_hooks(bundle("true"), poststop=stopped, **{kind: f"{see} {script}"})
        document = json.loads((folder / "config.json").read_text())
        document["hooks"][kind][0]["timeout"] = timeout
        (folder / "config.json").write_text(json.dumps(document))
        told = caller("create", "--bundle", folder, "c", check=1).stderr.decode()
        assert words in told
        assert told.count("\n") == 1, told
        assert b"does not exist" in caller("state", "c", check=1).stderr
        assert json.loads((tmp_path / "stopped").read_text())["status"] == "stopped"
        assert host.machines() == []
        assert json.loads(host.vc("pod", "ls", "--json").stdout) == []
        assert list(Path("/sys/fs/cgroup").glob(f"*/vc-test-{os.getpid()}")) == []
        pid, namespace = (tmp_path / "seen").read_text().split()
        assert namespace != str(Path("/proc/self/ns/net").readlink())
        # Its namespace ends with it: nothing else was in that. Numbers of namespaces are reused.
        assert not Path(f"/proc/{pid}").exists()


def test_one_that_fails_in_the_guest_ends_the_container(caller, bundle, host):
    folder = _with_hooks(bundle("echo", "process"), startContainer="exit 3")
    made = caller.create(folder, "c")
    caller("start", "c")
    assert caller.ended("c") == 1
    assert b"process" not in made.stdout.read()
    caller("delete", "c")
    assert host.machines() == []


def test_one_that_fails_later_is_a_warning(caller, bundle, tmp_path):
    caller.create(_with_hooks(bundle("true"), poststart="exit 3", poststop="exit 4"), "c")
    caller("--log", tmp_path / "log", "start", "c")
    assert b"hook /bin/sh ended with 3" in (tmp_path / "log").read_bytes()
    assert caller.ended("c") == 0
    caller("--log", tmp_path / "log", "delete", "c")
    assert b"hook /bin/sh ended with 4" in (tmp_path / "log").read_bytes()
    assert b"does not exist" in caller("state", "c", check=1).stderr
