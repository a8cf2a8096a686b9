"""Limits QEMU's use of the host: resource limits, and a control group if one can be created."""

from __future__ import annotations

import contextlib
import os
import resource
from pathlib import Path

from msgspec import Struct

from vc_core.driver_kit import HostProcess, mountinfo

_PARENT = "virtcontainers"
_FILES = 16384  # 9p closes unused files when it has half of them open
_MIB = 1 << 20
_GROUP_ROUNDS = 3
# Besides the guest's memory: translated code (1 GiB at most, with TCG), devices, libraries, stacks.
_OVERHEAD_MIB = {"tcg": 1536, "kvm": 512}
_ADDRESSES_MIB = 8192  # more than is used: untouched stacks and arenas of all threads
_WORKERS = 128  # 64 of QEMU's pool, and those of devices
_V1 = {"memory": "memory.limit_in_bytes", "pids": "pids.max"}
_V2 = {"memory": "memory.max", "pids": "pids.max"}


class Limits(Struct, frozen=True):
    """The limits of one machine.

    Attributes:
        memory_mib: maximum memory in MiB, with the largest size of its guest.
        threads: maximum number of threads.
    """

    memory_mib: int
    threads: int

    @classmethod
    def of(cls, accelerator: str, guest_mib: int, vcpus: int) -> Limits:
        """Returns the limits of a machine of this maximum size."""
        return cls(guest_mib + _OVERHEAD_MIB[accelerator], _WORKERS + vcpus)


def confine(process: HostProcess, limits: Limits, is_alone: bool) -> None:
    """Lowers the limits of a running process.

    Args:
        process: a process of this user.
        limits: its limits.
        is_alone: whether its threads are counted separately from the user's other processes.

    Raises:
        OSError: the kernel refused.
    """
    wanted = {
        resource.RLIMIT_CORE: 0,  # a core dump would contain the guest's memory
        resource.RLIMIT_NOFILE: _FILES,
        resource.RLIMIT_AS: (limits.memory_mib + _ADDRESSES_MIB) * _MIB,
    }
    if is_alone:
        wanted[resource.RLIMIT_NPROC] = limits.threads
    for which, value in wanted.items():
        _, hard = resource.prlimit(process.pid, which)
        lower = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.prlimit(process.pid, which, (lower, lower))


def join_group(process: HostProcess, name: str, limits: Limits) -> None:
    """Moves a process into a control group of its own.

    Raises:
        OSError: creating a group is not possible here.
    """
    values = {"memory": limits.memory_mib * _MIB, "pids": limits.threads}
    for controller, (top, files) in _controllers().items():
        folder = top / _PARENT / name
        for _ in range(_GROUP_ROUNDS):
            try:
                folder.mkdir(parents=True, exist_ok=True)
                _enable(top, controller)
                (folder / files[controller]).write_text(str(values[controller]))
                (folder / "cgroup.procs").write_text(str(process.pid))
            except FileNotFoundError:
                continue  # the group was removed by another process while it was empty
            break
        else:
            raise FileNotFoundError(2, "the control group vanishes", str(folder))


def leave_groups() -> None:
    """Removes groups of machines that have ended. A group with a process stays."""
    with contextlib.suppress(OSError):
        for top, _ in _controllers().values():
            for folder in (top / _PARENT).iterdir() if (top / _PARENT).is_dir() else ():
                with contextlib.suppress(OSError):  # in use, or removed by another process
                    if folder.is_dir():
                        folder.rmdir()


def _controllers() -> dict[str, tuple[Path, dict[str, str]]]:
    """Returns the hierarchies of memory and pids.

    Raises:
        FileNotFoundError: one is not mounted.
    """
    found: dict[str, tuple[Path, dict[str, str]]] = {}
    for mount in mountinfo.points():
        if mount.fstype == "cgroup":
            found |= {name: (mount.point, _V1) for name in mount.super_options if name in _V1}
        elif mount.fstype == "cgroup2":
            there = (mount.point / "cgroup.controllers").read_text().split()
            found |= {name: (mount.point, _V2) for name in there if name in _V2}
    for name in _V1:
        if name not in found:
            raise FileNotFoundError(2, "the controller is not mounted", name)
    return found


def _enable(top: Path, controller: str) -> None:
    """Enables a controller for the groups below, in version 2."""
    for folder in (top, top / _PARENT):
        control = folder / "cgroup.subtree_control"
        if control.exists() and controller not in control.read_text().split():
            control.write_text(f"+{controller}")


def is_writable() -> str:
    """Returns why creating a group is not possible here; empty when it is."""
    try:
        for top, _ in _controllers().values():
            if not os.access(top, os.W_OK):
                return f"{top} is read-only"
    except OSError as error:
        return f"{error.filename}: {error.strerror}"
    return ""
