"""Files that are there whole or not at all."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from pathlib import Path

from vc_core.spec import HostProcess, StorageError

_OWNED = re.compile(r"\.(?:half|dead)-(\d+)-(\d+)-.+")


def write_atomically(path: Path, text: str) -> None:
    """A reader sees the old file or the new; so does one after a power cut."""
    handle, name = tempfile.mkstemp(prefix=".half-", dir=path.parent)
    half = Path(name)
    try:
        with os.fdopen(handle, "w") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        half.replace(path)
    except BaseException:
        half.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def create_folder_with(folder: Path, name: str, text: str) -> bool:
    """Makes a folder that has one file from its first moment on. False when the folder is there already."""
    half = _own_folder("half", folder.parent)
    try:
        write_atomically(half / name, text)
        # rename(2) replaces an empty folder only: one with a file in it is never overwritten.
        half.rename(folder)
    except OSError:
        shutil.rmtree(half)
        if folder.exists():
            return False
        raise
    sync_folder(folder.parent)
    return True


def remove_folder(folder: Path) -> None:
    """Takes a folder out of sight in one step, then removes it. One that is not there is no error.

    Raises:
        StorageError: something is mounted below it: to go on would remove what belongs to somebody else.
    """
    inside = f"{folder.resolve()}/"
    points = (line.split(" ")[4] for line in Path("/proc/self/mountinfo").read_text().splitlines())
    if held := next((point for point in points if point.startswith(inside)), ""):
        raise StorageError(f"{held} is a mount point and must not be removed; unmount it first")
    dead = _own_folder("dead", folder.parent) if folder.parent.is_dir() else None
    if dead is None:
        return
    try:
        folder.rename(dead / folder.name)
    except FileNotFoundError:
        pass
    finally:
        shutil.rmtree(dead)
    sync_folder(folder.parent)


def sweep(folder: Path) -> None:
    """Takes away what calls have left half made or half removed that were killed."""
    for path in folder.iterdir() if folder.is_dir() else ():
        owner = _owner(path)
        if owner and not owner.is_alive():
            shutil.rmtree(path)


def is_at_work(path: Path) -> bool:
    """Whether a call that goes on has made it for a moment."""
    owner = _owner(path)
    return owner is not None and owner.is_alive()


def _owner(path: Path) -> HostProcess | None:
    found = _OWNED.fullmatch(path.name)
    return HostProcess(int(found[1]), int(found[2])) if found else None


def _own_folder(kind: str, parent: Path) -> Path:
    """A new folder whose name tells whose it is."""
    me = HostProcess.this()
    return Path(tempfile.mkdtemp(prefix=f".{kind}-{me.pid}-{me.start_ticks}-", dir=parent))


def sync_folder(folder: Path) -> None:
    """Makes renames in a folder durable."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
