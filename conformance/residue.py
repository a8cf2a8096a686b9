"""What pods of a containerd can leave on a host."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from conformance.containerd import OWN_FOLDERS, Engine

_CGROUPS = Path("/sys/fs/cgroup")
_STATES = ("state", "ipam", "root/io.containerd.runtime.v2.task")
_OF_RUNTIME = ("store", "run")


def found(engine: Engine, handler: str, names: Sequence[str]) -> set[str]:
    """Returns a line for each thing that is there now.

    Args:
        engine: the containerd.
        handler: name of the runtime.
        names: what the paths of the pods' control groups contain.
    """
    root = Path(f"/proc/{engine.keeper}/root")
    folders = [root / one.lstrip("/") for one in OWN_FOLDERS]
    folders += [engine.folder / one for one in _STATES]
    folders += [engine.folder / handler / one for one in _OF_RUNTIME]
    return {
        *_processes(engine),
        *_mounts(engine.keeper),
        *_sockets(engine.keeper),
        *_interfaces(engine.keeper),
        *_groups(names),
        *(line for folder in folders for line in _files(folder)),
    }


def _processes(engine: Engine) -> Iterator[str]:
    """Those in containerd's namespaces, or with a file of it on their command line."""
    kinds = ("mnt", "net")
    own = {kind: Path(f"/proc/{engine.keeper}/ns/{kind}").readlink() for kind in kinds}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        # It has ended; or it is one at which root of a container may not look, the host's first.
        with contextlib.suppress(FileNotFoundError, ProcessLookupError, PermissionError):
            words = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
            is_inside = any((entry / "ns" / kind).readlink() == own[kind] for kind in kinds)
            if is_inside or any(str(engine.folder) in word for word in words):
                yield f"process {entry.name}: {' '.join(words)[:120]}"


def _mounts(keeper: int) -> Iterator[str]:
    for line in Path(f"/proc/{keeper}/mountinfo").read_text().splitlines():
        yield f"mount {line.split()[4]}"


def _sockets(keeper: int) -> Iterator[str]:
    for line in Path(f"/proc/{keeper}/net/unix").read_text().splitlines()[1:]:
        if len(words := line.split()) > 7 and words[7].startswith("/"):
            yield f"socket {words[7]}"


def _interfaces(keeper: int) -> Iterator[str]:
    for line in Path(f"/proc/{keeper}/net/dev").read_text().splitlines()[2:]:
        yield f"interface {line.split(':')[0].strip()}"


def _groups(names: Sequence[str]) -> Iterator[str]:
    for folder, _, _ in os.walk(_CGROUPS):
        if any(name in folder for name in names):
            yield f"control group {folder}"


def remove_group(name: str) -> None:
    """Removes a control group that pods were in; one with something in it stays."""
    for folder in _CGROUPS.glob(f"*/{name.lstrip('/')}"):
        with contextlib.suppress(OSError):
            folder.rmdir()


def _files(folder: Path) -> Iterator[str]:
    for inside, folders, files in os.walk(folder):
        yield from (f"file {inside}/{name}" for name in (*folders, *files))
