"""Files that are written completely or not at all."""

from __future__ import annotations

import errno
import os
import re
import stat
from pathlib import Path

from vc_core.driver_kit import HostProcess
from vc_core.spec import StorageError

_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
_OWNED = r"\.(?:half|dead)-(\d+)-(\d+)-.+"


def write_atomically(path: Path, text: str) -> None:
    """Replaces a file: a reader sees the old file or the new one, also after a power cut."""
    import tempfile  # here, because listing pods does without it, as without the others

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
    """Creates a folder that contains one file from the start.

    Returns False when the folder exists already.
    """
    half = _own_folder("half", folder.parent)
    try:
        write_atomically(half / name, text)
        # rename(2) replaces an empty folder only: one with a file in it is never overwritten.
        half.rename(folder)
    except OSError:
        _remove_tree(half)
        if folder.exists():
            return False
        raise
    sync_folder(folder.parent)
    return True


def remove_folder(folder: Path) -> None:
    """Renames a folder in one step, then removes it. One that does not exist is no error.

    Raises:
        StorageError: something is mounted below it, whose files must not be removed.
    """
    from vc_core.driver_kit import mountinfo  # lists of pods do not need it

    if held := mountinfo.below(folder):
        raise StorageError(
            f"{held[0].point} is a mount point and must not be removed; unmount it first"
        )
    if is_missing(folder):
        return
    dead = folder.parent / _own_name("dead")
    try:
        _open_for_owner(folder)  # a directory without search permission is impossible to move
        folder.rename(dead)
    except FileNotFoundError:
        return
    except OSError as error:
        if error.errno not in _NO_SPACE:
            raise
        # There is no space for another name: a killed call leaves a part of it, which is
        # removed again.
        dead = folder
    _remove_tree(dead)
    sync_folder(folder.parent)


def is_missing(path: Path) -> bool:
    """Returns whether nothing has this name. What this user may not access exists."""
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return True
    except PermissionError:
        return False
    return False


def sweep(folder: Path) -> None:
    """Removes incomplete files of killed calls."""
    for path in folder.iterdir() if folder.is_dir() else ():
        owner = _owner(path)
        if owner and not owner.is_alive():
            _remove_tree(path)


def is_at_work(path: Path) -> bool:
    """Returns whether it is a temporary file of a call that still runs."""
    owner = _owner(path)
    return owner is not None and owner.is_alive()


def _owner(path: Path) -> HostProcess | None:
    found = re.fullmatch(_OWNED, path.name)
    return HostProcess(int(found[1]), int(found[2])) if found else None


def _own_folder(kind: str, parent: Path) -> Path:
    """Creates a folder whose name identifies its process."""
    made = parent / _own_name(kind)
    made.mkdir(mode=0o700)
    return made


def _own_name(kind: str) -> str:
    me = HostProcess.this()
    return f".{kind}-{me.pid}-{me.start_ticks}-{os.urandom(8).hex()}"


def _open_for_owner(path: Path) -> None:
    about = path.lstat()
    if stat.S_ISDIR(about.st_mode) and about.st_mode & stat.S_IRWXU != stat.S_IRWXU:
        path.chmod(0o700)


def _remove_tree(path: Path) -> None:
    """Removes a file, or a folder with all its contents, even without permission to enter it."""
    if path.is_symlink() or not path.is_dir():
        path.unlink()
        return
    import shutil

    try:
        shutil.rmtree(path)
    except PermissionError:
        _open_for_owner(path)
        for root, folders, _ in os.walk(path):
            for name in folders:
                _open_for_owner(Path(root, name))
        shutil.rmtree(path)


def sync_folder(folder: Path) -> None:
    """Makes renames in a folder durable."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
