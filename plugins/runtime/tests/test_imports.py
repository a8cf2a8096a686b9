"""What the commands import that callers repeat for each container."""

from __future__ import annotations

import subprocess
import sys

import pytest

_HEAVY = ("asyncio", "pluggy", "vc_core.engine", "vc_core.spec", "grpc", "qemu", "ssl")
_SCRIPT = """
import sys
from vc_runtime import command
command.run(sys.argv[1:])
print(*sys.modules, sep="\\n")
"""


@pytest.mark.parametrize("words", [("delete", "--force", "x"), ("list", "-q")])
def test_commands_that_need_no_machine_import_neither_engine_nor_asyncio(tmp_path, words):
    command = [sys.executable, "-c", _SCRIPT, "--root", str(tmp_path), *words]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    modules = set(done.stdout.split())
    assert "vc_runtime.command" in modules
    assert modules.isdisjoint(_HEAVY), modules & set(_HEAVY)


def test_a_signal_needs_no_engine():
    script = "import sys; from vc_runtime import host_commands; print(*sys.modules, sep='\\n')"
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert set(done.stdout.split()).isdisjoint(_HEAVY)
