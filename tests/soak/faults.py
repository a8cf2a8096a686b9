"""What goes wrong on a host, and what is left behind."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import enum
import gc
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

from tests.e2e.conftest import Host, processes

STORE = "store"
"""The folder of a host with all that its pods have, a file system of its own."""

_CGROUPS = Path("/sys/fs/cgroup")
_SHORT_BYTES = 24 << 20  # less than any machine needs
_LAST_S = 10.0
_YEAR_S = 365 * 24 * 3600
_LIBC = ctypes.CDLL(None)
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # malloc.h
_KEPT_BYTES = 128 << 10  # what both are until a larger block is freed


class Victim(enum.StrEnum):
    """Who is killed."""

    MACHINE = "QEMU"
    CLIENT = "client"
    LIBVIRTD = "libvirtd"
    NETWORK_KEEPER = "network keeper"
    PASTA = "pasta"
    POOL_KEEPER = "pool keeper"
    RUNTIME = "vc-runtime"
    RUNTIME_CHILD = "vc-runtime's child"
    STAND_IN = "stand-in"


class Trouble(enum.StrEnum):
    """What else is wrong meanwhile."""

    DISK = "disk full"
    MEMORY = "memory short"
    CLOCK = "clock jumps"


def found(host: Host, victim: Victim, pod: str) -> int:
    """The process of a pod, or of the host's pool; 0 when there is none now.

    While a stand-in is made, vc-runtime has a child with the same command line, which is younger.
    """
    matches = []
    root = str(host.folder / STORE / "runtime")
    run = str(host.folder / STORE / "run/pods" / pod)
    for pid, words in processes():
        line = " ".join(words)
        is_it = {
            Victim.MACHINE: "qemu-system" in words[0] and run in line,
            Victim.NETWORK_KEEPER: "inside.py" in line and run in line,
            Victim.PASTA: words[0].endswith("pasta") and run in line,
            Victim.RUNTIME: "vc_runtime" in words and root in words,
            Victim.RUNTIME_CHILD: "vc_runtime" in words and root in words,
            Victim.STAND_IN: words[0].endswith("vc-stand-in") and run in line,
            Victim.POOL_KEEPER: "keep" in words and str(host.config_file) in words,
        }
        if is_it.get(victim, False):
            matches.append(pid)
    if victim is Victim.RUNTIME_CHILD:
        return max(matches) if len(matches) > 1 else 0
    return min(matches, default=0)


def kill(pid: int) -> bool:
    """Ends a process at once; whether there was one."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
        return True
    return False


@contextmanager
def filled(folder: Path) -> Iterator[None]:
    """A file system without a free byte."""
    file = folder / "filler"
    handle = os.open(file, os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        with contextlib.suppress(OSError):
            while os.write(handle, bytes(1 << 20)):
                pass
            while os.write(handle, b"x"):
                pass
        yield
    finally:
        os.close(handle)
        file.unlink()


def starve(pid: int) -> bool:
    """Lowers the limit of a machine's control group below what it uses; whether it has one."""
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        names = controllers.split(",")
        is_ours = "virtcontainers" in path or path.endswith("/machine")  # that of an engine
        if not is_ours or (controllers and "memory" not in names):
            continue
        folder = _CGROUPS / ("memory" if controllers else "") / path.lstrip("/")
        file = "memory.limit_in_bytes" if controllers else "memory.max"
        with contextlib.suppress(OSError):  # EBUSY: what it uses cannot be taken away
            (folder / file).write_text(str(_SHORT_BYTES))
        return True
    return False


@contextmanager
def jumped(part: float) -> Iterator[None]:
    """The clock of this client, up to a year behind or ahead."""
    offset_ns = int((part * 2 - 1) * _YEAR_S * 1e9)
    ticks = time.time_ns

    def time_ns() -> int:
        return ticks() + offset_ns

    def seconds() -> float:
        return time_ns() / 1e9

    with mock.patch("time.time_ns", time_ns), mock.patch("time.time", seconds):
        yield


def groups() -> set[str]:
    """Control groups of machines in which there is nobody."""
    found = set()
    for top in _CGROUPS.iterdir():
        # os.walk goes on where a group of another program is removed meanwhile.
        for folder, _, files in os.walk(top):
            if Path(folder).parent.name == "virtcontainers" and "cgroup.procs" in files:
                with contextlib.suppress(OSError):
                    if not Path(folder, "cgroup.procs").read_text():
                        found.add(folder)
    return found


def listening() -> set[str]:
    """Addresses and ports on which this network namespace listens."""
    kinds = ("tcp", "tcp6", "udp", "udp6")
    lines = [line for kind in kinds for line in _table(kind)]
    return {f"{line.split()[1]} {line.split()[3]}" for line in lines if line.split()[3] != "01"}


def _table(kind: str) -> list[str]:
    return Path(f"/proc/self/net/{kind}").read_text().splitlines()[1:]


def dead_children() -> set[int]:
    """Children of this process that have ended, which nobody has waited for."""
    found = set()
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
            if parent == str(os.getpid()) and state == "Z":
                found.add(int(entry.name))
    return found


def left(host: Host, former: set[int]) -> list[str]:
    """What is left of pods, the dead children of this process too, but for `former` ones."""
    name = str(host.folder)
    own = os.getpid()
    ours = {f"mount {host.folder / STORE}", f"mount {host.folder}"}  # made by the soak itself
    remains = [one for one in host.residue() if one not in ours]
    remains += [f"dead child {pid}" for pid in sorted(dead_children() - former)]
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == own:
            continue
        with contextlib.suppress(OSError):
            words = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
            if any(name in word for word in words) and "--config" not in words:  # a keeper
                remains.append(f"process {entry.name}: {' '.join(words)[:120]}")
    return remains


def left_of_pool(templates: Path) -> list[str]:
    """The machines of a stopped pool, and their folders, in which their mounts are."""
    pool = templates / "pool"
    named = [(pid, words) for pid, words in processes() if str(pool) in " ".join(words)]
    return [
        *(f"process {pid}: {' '.join(words)[:120]}" for pid, words in named),
        *(str(path) for path in pool.glob("*") if path.is_dir()),
    ]


async def left_at_last(host: Host, former: set[int]) -> list[str]:
    """Like `left`, once processes have ended that end by themselves without their caller."""
    until = time.monotonic() + _LAST_S
    while (remains := left(host, former)) and time.monotonic() < until:  # noqa: ASYNC110
        await asyncio.sleep(0.1)  # nobody tells of such a process
    return remains


def keep_no_freed_memory() -> None:
    """Fixes how much freed memory the C library keeps in each thread's arena.

    Otherwise it keeps more after a larger block was freed, and `malloc_trim` does not return it.
    See mallopt(3).
    """
    for option in (_TRIM_THRESHOLD, _MMAP_THRESHOLD):
        assert _LIBC.mallopt(option, _KEPT_BYTES) == 1


def memory_kib() -> int:
    """What this process has in memory, without what the C library could give back."""
    gc.collect()
    _LIBC.malloc_trim(0)
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0])


def descriptors() -> int:
    """The number of this process's open files."""
    return sum(1 for _ in Path("/proc/self/fd").iterdir())
