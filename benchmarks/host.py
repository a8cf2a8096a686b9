"""The host that is measured on: what it is, and a store and templates of the benchmark's own."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from msgspec import structs

from vc_core import Runtime
from vc_core.config import parse
from vc_core.engine.host.tree_removal import remove_tree

_MODEL = "model name"


@dataclass(frozen=True)
class Bench:
    """Where everything of one run lies.

    Attributes:
        folder: its store and templates.
        config_file: that says so.
        is_quick: whether fewer samples will do.
    """

    folder: Path
    config_file: Path
    is_quick: bool

    def runtime(self, observer: type | None = None) -> Runtime:
        """A runtime on it, perhaps with somebody who watches."""
        config = parse(self.config_file.read_text(), self.config_file)
        if observer is None:
            return Runtime.open(config)
        watched = structs.replace(config, use=structs.replace(config.use, observers=("bench",)))
        return Runtime.open(watched, {("observer", "bench"): observer})

    def times(self, count: int) -> range:
        """How often to measure."""
        return range(max(2, count // 4) if self.is_quick else count)

    def vc(self, *args: str) -> subprocess.CompletedProcess[bytes]:
        """A command as a user types it."""
        return subprocess.run(
            [*self.command, *args], env=self.environment, capture_output=True, check=True
        )

    @property
    def command(self) -> list[str]:
        """The start of each."""
        return [str(Path(sys.executable).with_name("vc"))]

    @property
    def environment(self) -> dict[str, str]:
        """In which it finds its configuration, and Python its compiled files."""
        found = {**os.environ, "VC_CONFIG": str(self.config_file)}
        found.pop("PYTHONDONTWRITEBYTECODE", None)
        return found


@contextmanager
def bench(is_quick: bool) -> Iterator[Bench]:
    """A place for one run; nothing is left of it."""
    folder = Path(tempfile.mkdtemp(prefix="vc-bench-", dir="/dev/shm"))
    config = folder / "config.toml"
    config.write_text(
        f"[template]\ndir = '{folder}/templates'\n"
        f"[storage.fs]\nrun_root = '{folder}/run'\nconfig_root = '{folder}/config'\n"
    )
    try:
        yield Bench(folder, config, is_quick)
    finally:
        remove_tree(folder)  # enters no mount that a failed measurement has left


def described() -> dict[str, str]:
    """Describe the machine, for readers of the results."""
    cpu = next(
        (
            line
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith(_MODEL)
        ),
        "",
    )
    qemu = subprocess.run(
        ["qemu-system-x86_64", "--version"], capture_output=True, text=True, check=True
    ).stdout
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") >> 30
    return {
        "processor": f"{cpu.partition(':')[2].strip()}, {os.cpu_count()} of them",
        "memory": f"{memory} GiB",
        "kernel": platform.release(),
        "QEMU": qemu.splitlines()[0].removeprefix("QEMU emulator version "),
        "Python": platform.python_version(),
    }
