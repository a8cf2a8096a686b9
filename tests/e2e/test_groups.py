"""The caller's control groups of version 2: in a guest, whose kernel has no others."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest
from vc_agent_grpc.image import agent_program
from vc_agent_grpc.options import SYSTEM_CACHE

from tests.e2e import unified_groups
from tests.e2e.unified_groups import GROUP, MACHINE_BYTES, PATH, THREADS

pytestmark = [pytest.mark.only("qemu"), pytest.mark.timeout(300)]
STAND_IN_BYTES, STAND_IN_THREADS = 64 << 20, 32
JAIL = "virtcontainers/m"


@pytest.fixture
def scene(host, tmp_path):
    """Runs a scene in a guest; returns what it has found, and what it has warned of."""
    program = SYSTEM_CACHE / "agent" / agent_program.source_digest() / "vc-stand-in"
    if not program.exists():
        pytest.skip("the stand-in has not been built ('vc guest build')")
    shared = tmp_path / "shared"
    shared.mkdir()
    for file in (program, Path(unified_groups.__file__)):
        shutil.copy(file, shared)

    def run(name: str, *words: str) -> tuple[dict[str, object], str]:
        options = ("--cap-add", "ALL", "-v", f"{shared}:/mnt:ro")
        script = (sys.executable, "-P", "-B", "/mnt/unified_groups.py")
        done = host.vc("run", *options, "--", *script, name, *words)
        return json.loads(done.stdout), done.stderr.decode()

    return run


def test_stand_in_and_machine_are_in_the_callers_group_with_the_bounds_of_the_jail(scene):
    found, _ = scene("bounded")
    assert found == {
        "places": [PATH, PATH],
        "memory": str(MACHINE_BYTES + STAND_IN_BYTES),
        "threads": str(THREADS + STAND_IN_THREADS),
        "memory_group": str(GROUP),
        "processes": True,
        "busy": [str(GROUP)],
        "left": [],
        "exists": False,
    }


def test_a_machine_is_not_moved_where_its_bounds_would_not_hold(scene):
    found, told = scene("internal")
    assert found == {"places": [PATH, JAIL], "memory_group": "", "left": []}
    assert f"the machine is not in the control group {GROUP}: that has no memory.max" in told


def test_a_stand_in_ends_for_want_of_memory_in_the_callers_group(scene):
    found, _ = scene("oom", "/mnt/vc-stand-in")
    assert found.pop("events")["oom_kill"] == "1"
    assert found == {"report": "ok", "code": -9, "is_set_back": True, "is_machine_alive": True}
