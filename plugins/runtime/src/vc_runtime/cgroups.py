"""The control groups of the caller: `linux.cgroupsPath` in the hierarchies of version 1.

They hold the stand-in and the machine, so that what the caller reads there is of the pod. The
limits of config.json hold in the guest; here are only the bounds of the machine's jail.
"""

from __future__ import annotations

import errno
import logging
import os
from pathlib import Path

from vc_runtime.errors import RuntimeFailure

log = logging.getLogger(__name__)

_CPUSET = ("cpuset.cpus", "cpuset.mems")
_MACHINE = "machine"
_BOUNDS = {"memory": "memory.limit_in_bytes", "pids": "pids.max"}


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
    parts = text.split(":")
    if len(parts) != 3:
        raise RuntimeFailure(f"linux.cgroupsPath: {text!r} must be SLICE:PREFIX:NAME")
    slice_name, prefix, name = parts
    words = (slice_name or "system.slice").removesuffix(".slice").split("-")
    folders = ["-".join(words[: count + 1]) + ".slice" for count in range(len(words))]
    unit = name if name.endswith(".slice") else f"{prefix}-{name}.scope" if prefix else name
    return "/".join((*folders, unit))


def join(path: str) -> tuple[str, ...]:
    """Moves the calling process into the groups of a path; returns their folders.

    A hierarchy that cannot be written, as for an ordinary user, is left out.
    """
    made = []
    for top in _hierarchies().values() if path else ():
        folder = top / path
        try:
            _make(top, folder)
            (folder / "cgroup.procs").write_text(str(os.getpid()))
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EROFS, errno.EPERM):
                raise RuntimeFailure(f"{folder} cannot be used: {error.strerror}") from error
            continue
        made.append(str(folder))
    return tuple(made)


def memory_of(groups: tuple[str, ...]) -> str:
    """Returns the one of the groups that counts memory; empty when none does."""
    for name, top in _hierarchies().items():
        if "memory" in name.split(","):
            return next((group for group in groups if group.startswith(f"{top}/")), "")
    return ""


def adopt(groups: tuple[str, ...], pid: int) -> None:
    """Moves a machine below the groups, each with the bound that it has where it is."""
    hierarchies = {str(top): name for name, top in _hierarchies().items()}
    places = _places(pid)
    for group in groups:
        top = next(top for top in hierarchies if group.startswith(f"{top}/"))
        bound = next((_BOUNDS[one] for one in hierarchies[top].split(",") if one in _BOUNDS), "")
        former = Path(top) / places[hierarchies[top]].lstrip("/")
        folder = Path(group)
        if bound and former != folder:
            folder /= _MACHINE
            folder.mkdir(exist_ok=True)
            (folder / bound).write_text((former / bound).read_text())
        (folder / "cgroup.procs").write_text(str(pid))


def processes(path: str) -> set[int]:
    """Returns the processes in the groups of a path, and of the machine below."""
    found: set[int] = set()
    for folder in _folders(path):
        try:
            found.update(map(int, (folder / "cgroup.procs").read_text().split()))
        except FileNotFoundError:
            continue
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
    """Returns controllers as in /proc/PID/cgroup, and the mount point of their hierarchy."""
    named = {line.split(":")[1] for line in Path("/proc/self/cgroup").read_text().splitlines()}
    found: dict[str, Path] = {}
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, point, kind, options, *_ = line.split(" ")
        if kind != "cgroup":
            continue
        for name in named:
            if name and set(name.split(",")) <= set(options.split(",")):
                found.setdefault(name, Path(point))
    return found


def _places(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    return {name: path for _, name, path in (line.split(":", 2) for line in lines)}


def _make(top: Path, folder: Path) -> None:
    """Creates a group and those above it. A cpuset without processors accepts no process."""
    missing = [one for one in (folder, *folder.parents) if one != top and top in one.parents]
    for one in reversed(missing):
        one.mkdir(exist_ok=True)
        for name in _CPUSET:
            file = one / name
            if file.exists() and not file.read_text().strip():
                file.write_text((one.parent / name).read_text())
