"""What short commands import: a test of names, because no test asserts a time."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile

import pytest

from vc_core.cli import vc
from vc_core.cli.lazy_group import LazyGroup

NEEDLESS = {
    *("vc_qemu", "vc_agent_grpc", "vc_devices", "vc_network", "vc_observers", "grpc", "qemu"),
    *("vc_core.engine.api.runtime", "vc_core.engine.session", "vc_core.engine.lifecycle"),
    *("vc_core.engine.clones", "vc_core.engine.host"),
    *(f"vc_core.engine.resources.{name}" for name in ("rootfs", "shares", "devices")),
    *("vc_core.images", "vc_core.cli.pod_commands", "vc_core.cli.pod_create"),
    *("vc_core.cli.containers", "vc_core.driver_kit.accelerator", "vc_core.driver_kit.kvm_proof"),
    *("stevedore", "importlib.metadata", "email", "packaging", "rich", "pygments", "tempfile"),
    *("shutil", "hashlib", "secrets", "difflib", "fractions", "json", "ctypes"),
}

_SCRIPT = """
import atexit, sys
from pathlib import Path
atexit.register(lambda: print(*sys.modules, file=sys.stderr))
from vc_core.engine.wiring import known_plugins
memory = Path(sys.argv.pop(1))
known_plugins._folder = lambda: memory
from vc_core.cli import main
main()
"""


@pytest.mark.parametrize("words", [("pod", "ls"), ("ps",)], ids=" ".join)
def test_listings_import_no_driver_and_little_else(words, tmp_path):
    memory, config = tmp_path / "memory", tmp_path / "config.toml"
    with tempfile.TemporaryDirectory() as root:  # a short path, for the sockets
        config.write_text(f"[storage.fs]\nrun_root = '{root}/run'\nconfig_root = '{root}/config'\n")
        environ = {**os.environ, "VC_CONFIG": str(config)}
        arguments = [sys.executable, "-P", "-c", _SCRIPT, str(memory), *words]
        for _ in range(2):  # the first one remembers where the plugins are
            done = subprocess.run(
                arguments, env=environ, capture_output=True, text=True, check=True
            )
    assert sorted(NEEDLESS & set(done.stderr.split())) == []
    assert len(list(memory.iterdir())) == 1


_PATTERNS = """
import re, sys
import vc_core.cli.run, vc_core.engine.api.runtime
for module in [*sys.modules.values()]:
    if module.__name__.partition(".")[0] == "vc_core":
        print(*(f"{module.__name__}.{name}" for name, value in vars(module).items()
                if isinstance(value, re.Pattern)), end="")
"""


def test_a_run_compiles_patterns_when_they_are_used():
    # `re` keeps what it has compiled. At import, 60 patterns take as long as Python itself.
    words = [sys.executable, "-P", "-c", _PATTERNS]
    assert subprocess.run(words, capture_output=True, text=True, check=True).stdout.split() == []


def test_the_help_of_lazy_groups_is_that_of_their_commands():
    groups: list[tuple[str, LazyGroup]] = [("vc", vc)]
    for name, group in groups:
        for word, (_, _, text) in group.commands_at.items():
            command = group.get_command(None, word)
            assert command.name == word
            if isinstance(command, LazyGroup):
                groups.append((f"{name} {word}", command))
            elif name != "vc":
                assert " ".join(command.help.split()).startswith(text.removesuffix(".")), word
    assert [name for name, _ in groups] == ["vc", "vc pod"]


_UNUSED_BY_A_RUN = {
    *("tarfile", "vc_core.engine.api.files", "vc_core.engine.host.tar_stream"),
    *("secrets", "hmac", "difflib", "importlib.resources", "importlib.metadata", "email"),
    *("vc_qemu.doctor", "vc_agent_grpc.image.builder", "rich", "textual", "packaging", "stevedore"),
}
_RUN = """
import sys
import vc_core.cli.run, vc_core.engine.api.runtime, vc_qemu.plugin
import vc_agent_grpc.plugin, vc_agent_grpc.client, vc_storage_fs.plugin
"""


def test_a_run_imports_what_it_needs():
    words = [sys.executable, "-P", "-c", f"{_RUN}print(*sys.modules)"]
    found = subprocess.run(words, capture_output=True, text=True, check=True).stdout.split()
    assert sorted(_UNUSED_BY_A_RUN.intersection(found)) == []


_DATACLASSES = """
for module in [*sys.modules.values()]:
    print(*(value.__qualname__ for value in vars(module).values() if isinstance(value, type)
            and "__dataclass_fields__" in vars(value) and value.__module__ == module.__name__
            and module.__name__.partition(".")[0] == "vc_core"
            and not module.__name__.startswith("vc_core.driver_kit.")), end=" ")
"""


def test_the_engine_of_a_run_defines_structs():
    # Python 3.11 compiles six functions for each frozen dataclass.
    words = [sys.executable, "-P", "-c", _RUN + _DATACLASSES]
    assert subprocess.run(words, capture_output=True, text=True, check=True).stdout.split() == []
