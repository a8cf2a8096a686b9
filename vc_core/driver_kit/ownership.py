"""Who can change a file or folder that we trust, as ssh and git ask it.

One check for every folder of ours and for every file that decides what we run.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vc_core.spec.errors import InvalidRequest

_OVERFLOW_UID = 65534  # owners that a user namespace does not map: user_namespaces(7)
_OTHERS = stat.S_IWGRP | stat.S_IWOTH


def is_host_root() -> bool:
    """Whether we are root, and not only in a user namespace of an ordinary user's."""
    return os.geteuid() == 0 and _maps_all_users()


def trusted_owners() -> frozenset[int]:
    """Root and the effective user; for root under sudo also the user who typed it, as
    git has it.
    """
    owners = {*host_owners(), os.geteuid()}
    if os.geteuid() == 0 and (typed_by := os.environ.get("SUDO_UID", "")).isdecimal():
        owners.add(int(typed_by))
    return frozenset(owners)


def host_owners() -> frozenset[int]:
    """Root, also as a user namespace without it shows it."""
    return frozenset({0} if _maps_all_users() else {0, _OVERFLOW_UID})


def untrusted(path: Path, owners: frozenset[int]) -> str:
    """Why another user could have written a path; empty if none could.

    Looks at the path itself and the folder that it is in, both as named and behind symbolic links.

    Args:
        path: absolute, of what exists.
        owners: who may own it.
    """
    real = path.resolve()
    for one in dict.fromkeys((path.parent, path, real.parent, real)):
        about = one.lstat()
        if about.st_uid not in owners:
            return f"{one} belongs to {_name_of(about.st_uid)}"
        if stat.S_ISLNK(about.st_mode) or not about.st_mode & _OTHERS:
            continue
        if about.st_mode & stat.S_ISVTX and one not in (path, real):
            continue  # as /tmp: others cannot replace what is in it
        if not about.st_mode & stat.S_IWOTH and _is_private_group(about):
            continue
        return f"{one} can be written by other users"
    return ""


def private_folder(path: Path, setting: str) -> Path:
    """Makes a folder with mode 0700 that is this user's alone; parents that are missing get the
    same mode.

    Args:
        path: of the folder.
        setting: which names the folder in the configuration or the environment, for messages.

    Raises:
        InvalidRequest: it is a link or no folder, belongs to somebody else, others can write to it,
            or it cannot be made. What others could have put there is not trusted.
    """
    with opened_private_folder(path, setting):
        return path


@contextmanager
def opened_private_folder(path: Path, setting: str) -> Iterator[int]:
    """As `private_folder`; gives a descriptor of the folder for the length of a block."""
    try:
        for folder in reversed((path, *path.parents)):
            if not os.path.lexists(folder):
                with contextlib.suppress(FileExistsError):  # another process was faster
                    folder.mkdir(mode=0o700)
        if path.is_symlink() or not path.is_dir():
            raise InvalidRequest(
                f"{path} is not a directory; remove it, "
                f"or set {setting} to a directory that you own"
            )
        handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise InvalidRequest(
            f"{path} cannot be used: {error.strerror}; set {setting} to a directory that you own"
        ) from error
    try:
        about = os.fstat(handle)
        if about.st_uid != os.geteuid():
            raise InvalidRequest(
                f"{path} does not belong to this user but to {_name_of(about.st_uid)}; "
                f"set {setting} to a directory that you own"
            )
        if about.st_mode & _OTHERS:
            raise InvalidRequest(
                f"other users can write to {path}; 'chmod 700 {path}' when its content is yours, "
                f"or set {setting} to a directory that you own"
            )
        if stat.S_IMODE(about.st_mode) != 0o700:
            os.fchmod(handle, 0o700)
        yield handle
    finally:
        os.close(handle)


def write_private_file(path: Path, content: str | bytes) -> None:
    """Writes a file with mode 0600, whatever the umask; never through a symbolic link.

    Raises:
        OSError: it cannot be written.
    """
    handle = os.open(
        path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600
    )
    with os.fdopen(handle, "wb") as stream:
        os.fchmod(handle, 0o600)
        stream.write(content.encode() if isinstance(content, str) else content)


def _is_private_group(about: os.stat_result) -> bool:
    """Root's, or that of a user alone, which has the user's number by custom."""
    return about.st_gid in {0, about.st_uid}


def _maps_all_users() -> bool:
    try:
        return Path("/proc/self/uid_map").read_text().split() == ["0", "0", "4294967295"]
    except FileNotFoundError:  # a kernel without user namespaces
        return True


def _name_of(uid: int) -> str:
    import pwd

    try:
        return f"{pwd.getpwuid(uid).pw_name} (uid {uid})"
    except KeyError:
        return f"uid {uid}"
