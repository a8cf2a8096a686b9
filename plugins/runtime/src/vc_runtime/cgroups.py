"""The control groups of the caller: `linux.cgroupsPath` in all hierarchies of the host.

They hold the stand-in and the machine, so that what the caller reads there is of the pod. The
limits of config.json hold in the guest; here are only the bounds of the machine's jail.

Version 1 has a hierarchy for each controller, version 2 has one, which is used when it counts
something or no controller is mounted in version 1 (cgroups(7),
Documentation/admin-guide/cgroup-v2.rst).
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
from pathlib import Path

from vc_core.driver_kit import mountinfo
from vc_runtime.errors import RuntimeFailure

log = logging.getLogger(__name__)

_OWN, _MOUNTS = Path("/proc/self/cgroup"), Path("/proc/self/mountinfo")
_CPUSET = ("cpuset.cpus", "cpuset.mems")
_MACHINE = "machine"
_BOUNDS = {"memory": "memory.limit_in_bytes", "pids": "pids.max"}
_UNIFIED = ""  # the name of the hierarchy of version 2 in /proc/PID/cgroup
_COUNTING = ("memory", "pids", "cpu", "io")  # what callers read of a group
# In version 2 the stand-in is bounded with its machine, and at first with the Python that makes it.
_UNIFIED_BOUNDS = {"memory.max": 64 << 20, "pids.max": 32}
_NO_RIGHT = (errno.EACCES, errno.EPERM, errno.EROFS)
_IN_USE = (errno.EBUSY, errno.EOPNOTSUPP)


def path_of(text: str, is_systemd: bool) -> str:
    """Returns the path below each hierarchy; empty when none is given.

    Raises:
        RuntimeFailure: it leads out of the hierarchy, or is no name of systemd.
    """
    if not text:
        return ""
    if ".." in text.split("/"):
        raise RuntimeFailure(f"linux.cgroupsPath: {text!r} must not contain '..'")
    if not is_systemd:
        return text.strip("/")
    path = _of_systemd(text)
    if {"", ".", ".."}.intersection(path.split("/")):
        raise RuntimeFailure(f"linux.cgroupsPath: {text!r} names no unit of systemd")
    return path


def _of_systemd(text: str) -> str:
    parts = text.split(":")
    if len(parts) != 3 or "/" in text:
        raise RuntimeFailure(f"linux.cgroupsPath: {text!r} must be SLICE:PREFIX:NAME")
    slice_name, prefix, name = parts
    unit = name if name.endswith(".slice") else f"{prefix}-{name}.scope" if prefix else name
    return "/".join((*_slices(slice_name or "system.slice"), unit))


def _slices(name: str) -> tuple[str, ...]:
    """Returns the folders of a slice: systemd.slice(5) has each below the one it is named after."""
    if name == "-.slice":
        return ()
    words = name.removesuffix(".slice").split("-")
    if not all(words):
        raise RuntimeFailure(f"linux.cgroupsPath: {name!r} is no name of a slice")
    return tuple("-".join(words[: count + 1]) + ".slice" for count in range(len(words)))


def join(path: str) -> tuple[str, ...]:
    """Moves the calling process into the groups of a path; returns their folders.

    A hierarchy that cannot be written, as for an ordinary user, is left out.
    """
    made = []
    for name, top in _hierarchies().items() if path else ():
        folder = top / path
        try:
            _make(top, folder)
            if name == _UNIFIED:
                _count(top, folder)
            (folder / "cgroup.procs").write_text(str(os.getpid()))
        except OSError as error:
            if error.errno not in _NO_RIGHT:
                raise RuntimeFailure(f"{folder} cannot be used: {error.strerror}") from error
            continue
        made.append(str(folder))
    return tuple(made)


def writable(path: str) -> tuple[str, ...]:
    """Returns the folders of the groups of a path which this process could join."""
    folders = [top / path for top in _hierarchies().values()] if path else []
    return tuple(str(one) for one in folders if os.access(one / "cgroup.procs", os.W_OK))


def memory_of(groups: tuple[str, ...]) -> str:
    """Returns the one of the groups that counts memory; empty when none does."""
    for name, top in _hierarchies().items():
        found = next((group for group in groups if group.startswith(f"{top}/")), "")
        if "memory" in name.split(","):
            return found
        if name == _UNIFIED and found and (Path(found) / "memory.max").exists():
            return found
    return ""


def oom_kills(path: str) -> int:
    """Returns how often the kernel has killed a process of a path for want of memory.

    It is 0 where nobody counts that, or the group is gone.
    """
    for top in _hierarchies().values() if path else ():
        for name in ("memory.events", "memory.oom_control"):
            try:
                lines = (top / path / name).read_text().splitlines()
            except OSError:
                continue
            return next((int(line[9:]) for line in lines if line.startswith("oom_kill ")), 0)
    return 0


def adopt(groups: tuple[str, ...], pid: int) -> None:
    """Moves a machine to the groups, with the bounds that it has where it is.

    In version 1 it gets a group below those that bound it. In version 2 only groups without groups
    below may have processes, so the caller's has the bounds itself.
    """
    hierarchies = {str(top): name for name, top in _hierarchies().items()}
    places = _places(pid)
    for group in groups:
        top = next(top for top in hierarchies if group.startswith(f"{top}/"))
        name = hierarchies[top]
        former, folder = Path(top) / places[name].lstrip("/"), Path(group)
        if former == folder:
            continue
        try:
            if name != _UNIFIED:
                _move_below(name, former, folder, pid)
            elif _bound_both(former, folder):
                (folder / "cgroup.procs").write_text(str(pid))
        except OSError as error:
            if error.errno not in (*_NO_RIGHT, *_IN_USE):
                raise
            log.warning("the machine is not in the control group %s: %s", folder, error.strerror)


def _move_below(name: str, former: Path, folder: Path, pid: int) -> None:
    """Moves a machine to a group of version 1, or to one below that has its bound."""
    if bound := next((_BOUNDS[one] for one in name.split(",") if one in _BOUNDS), ""):
        folder /= _MACHINE
        folder.mkdir(exist_ok=True)
        (folder / bound).write_text((former / bound).read_text())
    (folder / "cgroup.procs").write_text(str(pid))


def _bound_both(former: Path, folder: Path) -> bool:
    """Bounds a group of version 2 as another one, with room for a stand-in.

    Returns False when it cannot be bounded, as a group above has processes, or belongs to somebody
    who has not delegated the controllers.
    """
    wanted = {}
    for name, room in _UNIFIED_BOUNDS.items():
        if (most := _limit(former / name)) is None:
            continue
        if not (folder / name).exists():
            log.warning("the machine is not in the control group %s: that has no %s", folder, name)
            return False
        present = _limit(folder / name)
        wanted[name] = most + room if present is None else min(most + room, present)
    before = {name: (folder / name).read_text() for name in wanted}
    try:
        for name, value in wanted.items():
            (folder / name).write_text(str(value))
    except OSError:
        for name, former_value in before.items():
            with contextlib.suppress(OSError):  # what could not be written is as it was
                (folder / name).write_text(former_value)
        raise
    return True


def _limit(file: Path) -> int | None:
    """Returns a limit; None when there is none, as in the group at the top."""
    try:
        text = file.read_text().strip()
    except FileNotFoundError:
        return None
    return None if text == "max" else int(text)


def processes(path: str) -> set[int]:
    """Returns the processes in the groups of a path, and of the machine below."""
    found: set[int] = set()
    for folder in _folders(path):
        try:
            found.update(map(int, (folder / "cgroup.procs").read_text().split()))
        except FileNotFoundError:
            continue
        except OSError as error:  # it has just been removed, or has threads of others
            log.debug("%s: %s", folder, error.strerror)
    return found


def remove(path: str) -> tuple[str, ...]:
    """Removes the groups of a path, and returns the folders that stay, mostly as they are in use.

    One that is gone is no error, nor one that is not the caller's to remove: all else goes on.
    """
    left = []
    for folder in _folders(path):
        try:
            folder.rmdir()
        except OSError as error:
            if error.errno in (errno.EBUSY, errno.ENOTEMPTY):
                left.append(str(folder))
            elif error.errno not in (errno.ENOENT, errno.EACCES, errno.EPERM, errno.EROFS):
                log.warning("%s is not removed: %s", folder, error.strerror)
                left.append(str(folder))
    return tuple(left)


def _folders(path: str) -> tuple[Path, ...]:
    """Returns where the groups of a path are, each after what is below it."""
    tops = _hierarchies().values() if path else ()
    return tuple(folder for top in tops for folder in (top / path / _MACHINE, top / path))


def _hierarchies() -> dict[str, Path]:
    """Returns the names of /proc/PID/cgroup, and the mount point of their hierarchy.

    That of version 2 is left out beside controllers of version 1, when it counts nothing that
    callers read.
    """
    named = {line.split(":")[1] for line in _OWN.read_text().splitlines()}
    found: dict[str, Path] = {}
    unified: Path | None = None
    for mount in mountinfo.points(_MOUNTS):
        if mount.fstype == "cgroup2" and unified is None:
            unified = mount.point
        if mount.fstype != "cgroup":
            continue
        for name in named:
            if name and mount.super_options.issuperset(name.split(",")):
                found.setdefault(name, mount.point)
    if unified is not None and (all("=" in name for name in found) or _counts(unified)):
        found = {name: top for name, top in found.items() if "=" not in name}
        found[_UNIFIED] = unified
    return found


def _counts(top: Path) -> bool:
    try:
        there = (top / "cgroup.controllers").read_text().split()
    except OSError:
        return False
    return not {"memory", "pids"}.isdisjoint(there)


def _places(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    return {name: path for _, name, path in (line.split(":", 2) for line in lines)}


def _make(top: Path, folder: Path) -> None:
    """Creates a group and those above it.

    In version 1, a cpuset without processors accepts no process.
    """
    for one in _way(top, folder):
        one.mkdir(exist_ok=True)
        if (one / "cgroup.controllers").exists():
            continue
        for name in _CPUSET:
            file = one / name
            if file.exists() and not file.read_text().strip():
                file.write_text((one.parent / name).read_text())


def _count(top: Path, folder: Path) -> None:
    """Has a group of version 2 count what callers read there, as far as the groups above let it.

    One that has processes passes nothing on: the kernel refuses that for memory, and with the
    other controllers those below could not have processes. Only the root of all may do both.
    """
    for above in (top, *_way(top, folder.parent)):
        is_root = not (above / "cgroup.type").exists()
        if not is_root and _has_processes(above):
            log.debug("%s has processes, so that it passes no controllers on", above)
            return
        there = (above / "cgroup.controllers").read_text().split()
        control = above / "cgroup.subtree_control"
        for name in set(_COUNTING).intersection(there).difference(control.read_text().split()):
            try:
                control.write_text(f"+{name}")
            except OSError as error:
                if error.errno not in (errno.EBUSY, errno.EINVAL, *_NO_RIGHT):
                    raise
                log.debug("%s does not pass %s on: %s", above, name, error.strerror)


def _has_processes(folder: Path) -> bool:
    """Returns whether a group has processes, or threads of processes of a group above."""
    try:
        return bool((folder / "cgroup.procs").read_text())
    except OSError as error:
        if error.errno != errno.EOPNOTSUPP:
            raise
        return True


def _way(top: Path, folder: Path) -> tuple[Path, ...]:
    """Returns the groups from below the top to a folder."""
    found = [one for one in (folder, *folder.parents) if top in one.parents]
    return tuple(reversed(found))
