"""Lives of an engine's containers: vc-runtime, called as conmon and containerd's shim call it."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.e2e import engines
from tests.e2e.conftest import Host
from tests.e2e.test_oci import MOUNTS
from tests.soak import faults

_PROGRAMS = ("sh", "sleep", "true")
_LIMIT_S = 120
_CGROUPS = Path("/sys/fs/cgroup")


class Engine:
    """A caller of vc-runtime, with one bundle.

    Args:
        host: whose pods the containers are in.
        folder: an empty one, for the bundles.
    """

    def __init__(self, host: Host, folder: Path) -> None:
        self._folder = folder
        self._command = engines.wrapper(host)
        self._root = host.folder / faults.STORE / "runtime"
        rootfs = folder / "rootfs"
        for name in ("bin", "dev", "proc", "sys"):
            (rootfs / name).mkdir(parents=True)
        program = shutil.which("busybox")
        assert program is not None, "busybox is not installed"
        shutil.copy(program, rootfs / "bin/busybox")
        for name in _PROGRAMS:
            (rootfs / "bin" / name).symlink_to("busybox")

    def commands(self, name: str, dice: random.Random) -> Iterator[tuple[str, ...]]:
        """Yields the words of what an engine types in the life of a container."""
        bundle = self._folder / name
        bundle.mkdir()
        (bundle / "config.json").write_text(json.dumps(self._document(name)))
        yield ("create", "--bundle", str(bundle), "--pid-file", str(bundle / "pid"), name)
        if dice.random() < 0.1:
            return
        yield ("start", name)
        yield ("state", name)
        if dice.random() < 0.3:
            yield ("exec", name, "true")
        if dice.random() < 0.2:
            yield ("pause", name)
            yield ("resume", name)
        yield ("kill", name, dice.choice(("TERM", "KILL")))

    def type(self, *words: str) -> subprocess.CompletedProcess[bytes]:
        """Types one command. Its stand-in has no streams that this process must read."""
        return subprocess.run(
            [self._command, "--root", self._root, "--log", self._folder / "log", *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=_LIMIT_S,
            check=False,
        )

    def said(self) -> str:
        """Returns the end of the log."""
        log = self._folder / "log"
        return log.read_text()[-1000:] if log.exists() else ""

    def remove(self, name: str) -> None:
        """Deletes what is left of a container.

        Raises:
            AssertionError: it fails, or something of it is left.
        """
        done = self.type("delete", "--force", name)
        assert done.returncode == 0, self.said()
        groups = [str(path) for path in _CGROUPS.glob(f"*/{self._group(name)}")]
        records = [str(path) for path in self._root.glob("*") if path.is_dir()]
        assert groups + records == [], groups + records
        shutil.rmtree(self._folder / name)

    def _group(self, name: str) -> str:
        return f"{self._folder.parent.name}-{name}"

    def _document(self, name: str) -> dict[str, object]:
        kinds = ("pid", "network", "ipc", "mount", "cgroup")
        return {
            "ociVersion": "1.2.0",
            "process": {
                "args": ["sleep", "600"],
                "cwd": "/",
                "env": ["PATH=/bin"],
                "user": {"uid": 0, "gid": 0},
            },
            "root": {"path": str(self._folder / "rootfs")},
            "mounts": MOUNTS,
            "linux": {
                "namespaces": [{"type": kind} for kind in kinds],
                "cgroupsPath": f"/{self._group(name)}",
                "resources": {"memory": {"limit": 64 << 20}},
            },
        }
