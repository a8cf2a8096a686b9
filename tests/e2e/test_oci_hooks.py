"""Hooks of OCI bundles, on real machines."""

from __future__ import annotations

import json
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
