"""A pod whose sandbox says how much its containers may use together, as containerd writes it."""

from __future__ import annotations

import json
import os
import subprocess

import pytest

from tests.e2e.test_runtime_command import (
    bundle,  # noqa: F401 (a fixture)
    caller,  # noqa: F401 (a fixture)
)

pytestmark = [
    pytest.mark.only("qemu"),
    pytest.mark.timeout(600),
    pytest.mark.skipif(os.geteuid() != 0, reason="an ordinary user's bundles are not set up here"),
]
CRI = "io.kubernetes.cri"
SANDBOX = {
    f"{CRI}.container-type": "sandbox",
    f"{CRI}.sandbox-id": "box",
    f"{CRI}.sandbox-cpu-period": "100000",
    f"{CRI}.sandbox-cpu-quota": "150000",
    f"{CRI}.sandbox-cpu-shares": "204",
    f"{CRI}.sandbox-memory": str(200 << 20),
}
MEMBER = {f"{CRI}.container-type": "container", f"{CRI}.sandbox-id": "box"}
SEES = "nproc; grep MemTotal /proc/meminfo; exec sleep 1000"


def _annotated(folder, annotations, limits=None):
    file = folder / "config.json"
    document = json.loads(file.read_text())
    document["annotations"] = annotations
    document["linux"]["resources"] = limits or {}
    file.write_text(json.dumps(document))
    return folder


def _seen(made) -> tuple[int, int]:
    """Returns the processors and the MiB of memory that a container has printed."""
    processors, memory = made.stdout.readline(), made.stdout.readline()
    return int(processors), int(memory.split()[1]) >> 10


def test_the_machine_has_the_size_of_the_annotations_from_the_first_container_on(
    caller,  # noqa: F811
    bundle,  # noqa: F811
):
    made = caller.create(_annotated(bundle("sh", "-c", SEES), SANDBOX), "box")
    caller("start", "box")
    seen = _seen(made)
    assert seen[0] == 2
    assert 256 + 128 < seen[1] <= 256 + 256  # memory is plugged in blocks of 128 MiB
    limits = {
        "memory": {"limit": 190 << 20},
        "cpu": {"quota": 150_000, "period": 100_000},
    }
    member = caller.create(_annotated(bundle("sh", "-c", SEES), MEMBER, limits), "member")
    caller("start", "member")
    assert _seen(member) == seen


def test_a_size_that_no_machine_may_have_is_refused_in_one_line(
    caller,  # noqa: F811
    bundle,  # noqa: F811
    host,
):
    folder = _annotated(bundle("true"), {**SANDBOX, f"{CRI}.sandbox-memory": str(1 << 60)})
    told = caller("create", "--bundle", folder, "box", check=1).stderr.decode()
    assert "raise hypervisor.qemu.max_memory_mib" in told
    assert len(told.splitlines()) == 1
    assert host.machines() == []


def test_a_size_that_is_none_is_told_and_has_no_effect(caller, bundle, tmp_path):  # noqa: F811
    folder = _annotated(bundle("true"), {**SANDBOX, f"{CRI}.sandbox-memory": "a lot"})
    words = (caller.command, "--root", caller.folder / "root", "--log", tmp_path / "log")
    subprocess.run(
        [*map(str, words), "create", "--bundle", folder, "box"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,  # the stand-in keeps it
        timeout=240,
        check=True,
    )
    assert "sandbox-memory has no effect: 'a lot' is not a number" in (tmp_path / "log").read_text()
