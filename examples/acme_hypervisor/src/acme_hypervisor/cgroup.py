"""The control group of a sandbox. Format: Linux, Documentation/admin-guide/cgroup-v2.rst."""

from __future__ import annotations

import contextlib
import os
import select
from pathlib import Path

from vc_core.driver_kit import mountinfo
from vc_core.spec import HypervisorError, VmSize

_PERIOD_US = 100_000
_LIMIT_S = 10


def hierarchy() -> Path:
    """Where the host has mounted cgroup v2.

    Raises:
        HypervisorError: nowhere.
    """
    for mount in mountinfo.points():
        if mount.fstype == "cgroup2":
            return mount.point
    raise HypervisorError("no cgroup v2 is mounted: mount -t cgroup2 none /sys/fs/cgroup")


def group_of(pid: int, prefix: str) -> Path:
    """The control group of a process, or the one above it, whose name begins so.

    Raises:
        HypervisorError: it is in none.
    """
    inside = Path(f"/proc/{pid}/cgroup").read_text().rpartition("0::/")[2].strip()
    whole = hierarchy() / inside
    for path in (whole, *whole.parents):
        if path.name.startswith(prefix):
            return path
    raise HypervisorError(f"process {pid} is in no control group {prefix}*")


class Cgroup:
    """That of one sandbox."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def launcher(self) -> Path:
        """That of the process which waits for the sandbox's first one."""
        return self.path / "launcher"

    @property
    def inside(self) -> Path:
        """What the sandbox sees as the root."""
        return self.path / "sandbox"

    def make(self, size: VmSize) -> None:
        """Makes it; what the host has no controllers for is not limited."""
        self.path.mkdir(exist_ok=True)
        for group in (self.path.parent, self.path):
            for name in (group / "cgroup.controllers").read_text().split():
                with contextlib.suppress(OSError):  # one that this host keeps to itself
                    (group / "cgroup.subtree_control").write_text(f"+{name}")
        for group in (self.launcher, self.inside):
            group.mkdir(exist_ok=True)
        self.limit(size)

    def settle(self, pid: int) -> None:
        """Returns when the sandbox runs in it, or that process has ended. Blocks."""
        handle = os.pidfd_open(pid)
        try:
            self._await("populated 1", self.inside, handle)
        finally:
            os.close(handle)

    def limit(self, size: VmSize) -> None:
        """As large as a machine would be."""
        wanted = {
            "cpu.max": f"{size.vcpus * _PERIOD_US} {_PERIOD_US}",
            "memory.max": str(size.memory_mib << 20),
        }
        for name, value in wanted.items():
            if (self.path / name).exists():
                (self.path / name).write_text(value)

    def freeze(self, is_frozen: bool) -> None:
        """Stops or continues every process. Blocks until that is so."""
        (self.path / "cgroup.freeze").write_text(str(int(is_frozen)))
        self._await(f"frozen {int(is_frozen)}")

    def is_frozen(self) -> bool:
        """Whether it stands still."""
        return (self.path / "cgroup.freeze").read_text().strip() == "1"

    def cpu_ns(self) -> int:
        """Processor time of all that ever ran in it."""
        lines = (self.path / "cpu.stat").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("usage_usec ")).split()[1]) * 1000

    def processes(self) -> list[int]:
        """All that are in it, and below."""
        return [
            int(pid) for file in self.path.rglob("cgroup.procs") for pid in file.read_text().split()
        ]

    def remove(self) -> None:
        """Kills what is in it and removes it with all below. Blocks. May be called twice."""
        if not self.path.exists():
            return
        (self.path / "cgroup.kill").write_text("1")
        self._await("populated 0")
        for folder in sorted(self.path.rglob("*/"), key=lambda found: -len(found.parts)):
            folder.rmdir()
        self.path.rmdir()

    def _await(self, line: str, group: Path | None = None, handle: int = -1) -> None:
        """Wait until a line is in cgroup.events, or a process has ended.

        The kernel reports a change of the file as POLLPRI, and the end of a process as POLLIN on
        its descriptor.
        """
        with ((group or self.path) / "cgroup.events").open() as events:
            poll = select.poll()
            poll.register(events, select.POLLPRI)
            if handle >= 0:
                poll.register(handle, select.POLLIN)
            while line not in events.read():
                woken = [number for number, _ in poll.poll(_LIMIT_S * 1000)]
                if not woken:
                    raise HypervisorError(
                        f"the sandbox's control group is not {line!r} within {_LIMIT_S} s"
                    )
                if handle in woken:
                    return
                events.seek(0)
