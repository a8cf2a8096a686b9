"""Hooks of OCI bundles, on real machines."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.test_oci import bundle

__all__ = ["bundle"]  # the fixture

pytestmark = pytest.mark.only("qemu")


def _hook(tmp_path: Path, name: str, script: str) -> dict[str, Any]:
    path = tmp_path / f"{name}.sh"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return {"path": str(path), "args": [name, "one"], "env": ["ONLY=this"]}


def test_hooks_get_real_states_in_their_order(host, bundle, tmp_path):
    note = f'echo "$0 $1 $ONLY $HOME $(cat)" >> {tmp_path}/notes'
    hooks = {
        name: [_hook(tmp_path, name, note)]
        for name in ("prestart", "createRuntime", "poststart", "poststop")
    }
    folder = bundle("b", "sleep", "99", hooks=hooks, annotations={"owner": "nina"})
    host.vc("container", "create", "--bundle", str(folder), "--name", "c")
    host.vc("pod", "start", "c")
    machine = json.loads(host.vc("pod", "status", "c", "--json").stdout)["pid"]
    host.vc("container", "stop", "c", "--grace", "0")
    host.vc("pod", "delete", "c")
    lines = (tmp_path / "notes").read_text().splitlines()
    states = [json.loads(line.partition("{")[1] + line.partition("{")[2]) for line in lines]
    names = ["prestart", "createRuntime", "poststart", "poststop"]
    assert [Path(line.split()[0]).stem for line in lines] == names
    assert all(" one this  {" in line for line in lines), "the exact arguments and environment"
    assert [state["status"] for state in states] == ["created", "created", "running", "stopped"]
    assert [state["pid"] for state in states] == [machine, machine, machine, 0]
    assert all(
        (state["id"], state["bundle"], state["annotations"])
        == ("c", str(folder), {"owner": "nina"})
        for state in states
    )


def test_a_prestart_hook_that_fails_stops_the_start_and_poststop_is_told(host, bundle, tmp_path):
    hooks = {
        "prestart": [_hook(tmp_path, "prestart", "echo no licence; exit 3")],
        "poststop": [_hook(tmp_path, "poststop", f"cat > {tmp_path}/stopped")],
    }
    folder = bundle("b", "sleep", "99", hooks=hooks)
    host.vc("container", "create", "--bundle", str(folder), "--name", "c")
    told = host.vc("pod", "start", "c", check=125).stderr.decode()
    assert "ended with 3: no licence" in told
    assert json.loads((tmp_path / "stopped").read_text())["status"] == "stopped"
    assert json.loads(host.vc("pod", "status", "c", "--json").stdout)["state"] == "ready"
    host.vc("pod", "delete", "c")


def test_a_hook_that_hangs_is_killed_with_all_it_started(host, bundle, tmp_path):
    hang = f"sleep 987 & echo $! > {tmp_path}/child; echo $$ > {tmp_path}/hook; wait"
    hook = {**_hook(tmp_path, "prestart", hang), "timeout": 1, "env": ["PATH=/usr/bin:/bin"]}
    folder = bundle("b", "sleep", "99", hooks={"prestart": [hook]})
    host.vc("container", "create", "--bundle", str(folder), "--name", "c")
    told = host.vc("pod", "start", "c", check=125).stderr.decode()
    assert "did not end within 1 s and was killed" in told
    for name in ("hook", "child"):
        stat = Path(f"/proc/{int((tmp_path / name).read_text())}/stat")
        assert not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] == "Z", (
            "dead, if nobody reaped it"
        )
    host.vc("pod", "delete", "c")


def test_those_of_the_container_run_where_it_is(host, bundle, tmp_path):
    """On the host with mounts of its own; in the guest, in the container."""
    (tmp_path / "point").mkdir()
    (tmp_path / "out").mkdir()
    mount = f"mount -t tmpfs hook {tmp_path}/point && touch {tmp_path}/point/file"
    look = (
        "echo $0 $1 $ONLY >> /out/told; cat > /out/state; uname -r >> /out/told; pwd >> /out/told"
    )
    shared = {"type": "bind", "source": str(tmp_path / "out"), "options": ["rbind", "rw"]}
    apart = _hook(tmp_path, "apart", f"{mount} && ls {tmp_path}/point > {tmp_path}/seen")
    apart["env"] = ["PATH=/usr/bin:/bin"]
    inside = {"path": "/bin/sh", "args": ["sh", "-c", look, "inside", "one"], "env": ["ONLY=this"]}
    inside["env"].append("PATH=/bin")
    hooks = {"createContainer": [apart], "startContainer": [inside]}
    folder = bundle(
        *("b", "sh", "-c", "echo process >> /out/told"),
        hooks=hooks,
        mounts=[{"destination": "/out", **shared}],
    )
    host.vc("container", "create", "--bundle", str(folder), "--name", "c")
    host.vc("pod", "start", "c")
    host.vc("container", "wait", "c")
    host.vc("pod", "delete", "c")
    assert (tmp_path / "seen").read_text() == "file\n"
    assert list((tmp_path / "point").iterdir()) == []
    assert f"{tmp_path}/point" not in Path("/proc/self/mountinfo").read_text()
    words, release, folder_of_it, process = (tmp_path / "out/told").read_text().splitlines()
    assert (words, folder_of_it, process) == ("inside one this", "/", "process")
    assert release != os.uname().release, "the kernel of the guest"
    assert json.loads((tmp_path / "out/state").read_text())["id"] == "c"


def test_a_create_container_hook_that_fails_or_hangs_stops_the_start(host, bundle, tmp_path):
    for script, timeout, words in (
        ("echo no licence; exit 3", 0, "ended with 3: no licence"),
        ("sleep 1000 & sleep 1000", 1, "did not end within 1 s and was killed"),
    ):
        hook = {**_hook(tmp_path, "create", script), "timeout": timeout}
        hook["env"] = ["PATH=/usr/bin:/bin"]
        name = f"b{timeout}"
        folder = bundle(name, "sleep", "99", hooks={"createContainer": [hook]})
        host.vc("container", "create", "--bundle", str(folder), "--name", "c")
        assert words in host.vc("pod", "start", "c", check=125).stderr.decode()
        assert json.loads(host.vc("pod", "status", "c", "--json").stdout)["state"] == "ready"
        assert host.machines() == []
        host.vc("pod", "delete", "c")


def test_a_start_container_hook_that_fails_or_hangs_ends_the_container(host, bundle, tmp_path):
    (tmp_path / "out").mkdir()
    shared = {"type": "bind", "source": str(tmp_path / "out"), "options": ["rbind", "rw"]}
    for name, script, timeout in (("fails", "exit 3", 5), ("hangs", "sleep 1000", 1)):
        hook = {"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/bin"]}
        folder = bundle(
            *(name, "sh", "-c", "echo process >> /out/told"),
            hooks={"startContainer": [{**hook, "timeout": timeout}]},
            mounts=[{"destination": "/out", **shared}],
        )
        host.vc("container", "create", "--bundle", str(folder), "--name", "c")
        host.vc("pod", "start", "c")
        assert host.vc("container", "wait", "c").stdout == b"1\n"
        assert list((tmp_path / "out").iterdir()) == []
        host.vc("pod", "delete", "c")
