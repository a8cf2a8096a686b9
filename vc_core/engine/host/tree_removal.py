"""Removes folders with hostile contents: deep trees, odd names, links, immutable files.

No link is followed and no mount point is entered. A folder within a folder is moved to the top
before it is emptied, so neither recursion depth nor the number of descriptors grows.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import struct
from pathlib import Path

from vc_core.engine.host.mount_calls import open_plain, opened
from vc_core.spec.errors import StorageError

# linux/fs.h: attributes of files that prevent even root from removing them.
_FS_IOC_GETFLAGS, _FS_IOC_SETFLAGS = 0x80086601, 0x40086602
_IMMUTABLE, _APPEND = 0x10, 0x20
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def remove_tree(path: Path) -> None:
    """Removes a file, or a folder with all its contents. What does not exist is no error.

    Raises:
        StorageError: something is impossible to remove, or something is mounted below; names it.
    """
    try:
        with opened(os.open(path.parent, _FOLDER)) as parent:
            name = path.name
            if _is_removed(parent, name, path):
                return
            with opened(_open_folder(parent, name, path)) as top:
                _empty(top, path)
            _unlock(parent)
            os.rmdir(name, dir_fd=parent)
    except FileNotFoundError:
        return
    except OSError as error:
        raise StorageError(
            f"{error.filename or path} cannot be removed: {error.strerror}"
        ) from error


def empty(path: Path) -> None:
    """Removes the contents of a folder and keeps the folder. Raises the errors of `remove_tree`."""
    try:
        with opened(open_plain(path, _FOLDER)) as top:
            _empty(top, path)
    except FileNotFoundError:
        return
    except OSError as error:
        raise StorageError(
            f"{error.filename or path} cannot be emptied: {error.strerror}"
        ) from error


def _empty(top: int, path: Path) -> None:
    moved = 0
    _unlock(top)
    while names := _names(top):
        for name in names:
            if _is_removed(top, name, path):
                continue
            with opened(_open_folder(top, name, path)) as folder:
                _unlock(folder)
                for inner in _names(folder):
                    if not _is_removed(folder, inner, path):
                        while _exists(top, f"{moved:x}"):
                            moved += 1
                        _move(folder, inner, top, f"{moved:x}", path)
                        moved += 1
            os.rmdir(name, dir_fd=top)


def _is_removed(folder: int, name: str, path: Path) -> bool:
    """Returns whether the entry was removed; False for a folder that is not empty."""
    for _ in range(2):
        try:
            if stat.S_ISDIR(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
                os.rmdir(name, dir_fd=folder)
            else:
                os.unlink(name, dir_fd=folder)
        except FileNotFoundError:
            return True
        except OSError as error:
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
                return False
            if error.errno not in (errno.EPERM, errno.EACCES):
                raise _about(error, path, name) from error
            refusal = error
            _unlock(folder)
            _unlock_entry(folder, name)
        else:
            return True
    raise _about(refusal, path, name)


def _open_folder(parent: int, name: str, path: Path) -> int:
    try:
        return open_plain(name, _FOLDER, at=parent, stays_in_mount=True)
    except PermissionError:
        with opened(
            open_plain(name, os.O_PATH | os.O_DIRECTORY, at=parent, stays_in_mount=True)
        ) as folder:
            Path(f"/proc/self/fd/{folder}").chmod(
                0o700
            )  # an ordinary user's, who may change the mode of their own files
        return open_plain(name, _FOLDER, at=parent, stays_in_mount=True)
    except OSError as error:
        if error.errno == errno.EXDEV:
            raise StorageError(
                f"{path}: something is mounted on {name!r} in it; unmount it first"
            ) from error
        raise


def _move(folder: int, name: str, top: int, new: str, path: Path) -> None:
    for attempt in range(2):
        try:
            os.rename(name, new, src_dir_fd=folder, dst_dir_fd=top)
        except OSError as error:
            if attempt or error.errno not in (errno.EPERM, errno.EACCES):
                raise _about(error, path, name) from error
            _unlock_entry(folder, name)
            with opened(_open_folder(folder, name, path)) as inner:
                _unlock(inner)
        else:
            return


def _unlock_entry(folder: int, name: str) -> None:
    """Removes the attributes that prevent the removal of a regular file."""
    try:
        with opened(open_plain(name, os.O_PATH, at=folder)) as entry:
            mode = os.fstat(entry).st_mode
            if stat.S_ISREG(mode) or stat.S_ISDIR(mode):  # opening a device may have side effects
                with opened(
                    os.open(f"/proc/self/fd/{entry}", os.O_RDONLY | os.O_CLOEXEC)
                ) as handle:
                    _unlock(handle)
    except OSError:
        return  # a link, or unreadable: the following attempt reports the reason


def _unlock(handle: int) -> None:
    about = os.fstat(handle)
    try:
        (flags,) = struct.unpack("l", fcntl.ioctl(handle, _FS_IOC_GETFLAGS, struct.pack("l", 0)))
        if flags & (_IMMUTABLE | _APPEND):
            fcntl.ioctl(handle, _FS_IOC_SETFLAGS, struct.pack("l", flags & ~(_IMMUTABLE | _APPEND)))
        if (
            stat.S_ISDIR(about.st_mode)
            and about.st_uid == os.geteuid()
            and about.st_mode & 0o700 != 0o700
        ):
            os.fchmod(handle, 0o700)
    except OSError:
        # No such attributes here, or no permission: the following attempt reports the reason.
        return


def _names(folder: int) -> list[str]:
    with os.scandir(folder) as entries:
        return [entry.name for entry in entries]


def _exists(folder: int, name: str) -> bool:
    try:
        os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _about(error: OSError, path: Path, name: str) -> OSError:
    return OSError(error.errno, os.strerror(error.errno or 0), f"{path}: {name!r}")
