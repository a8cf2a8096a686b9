"""Checks which users can change a trusted file or folder, like ssh and git.

One check for every private folder and for every file that determines what is executed.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vc_core.spec.errors import InvalidRequest

_OVERFLOW_UID = 65534  # owners that a user namespace does not map: user_namespaces(7)
_OTHERS = stat.S_IWGRP | stat.S_IWOTH


def is_host_root() -> bool:
    """Returns whether this process is root on the host, and not only in a user namespace."""
    return os.geteuid() == 0 and _maps_all_users()


def is_system_root() -> bool:
    """Returns whether the folders of the system belong to this process: then it uses those.

    They do not belong to the root of an ordinary user's namespace, which podman makes: that is the
    user, with the user's folders.
    """
    if os.geteuid() != 0:
        return False
    try:
        return Path("/run").stat().st_uid == 0
    except FileNotFoundError:  # a host without it
        return True


def user_number() -> int:
    """Returns the effective uid, of the root of a user namespace that of the user behind it."""
    if os.geteuid() != 0 or is_system_root():
        return os.geteuid()
    mapped = Path("/proc/self/uid_map").read_text().splitlines()
    return next(int(line.split()[1]) for line in mapped if line.split()[0] == "0")


def home_folder() -> Path:
    """Returns HOME, or else the home of `user_number`: `Path.home` would take that of root.

    Raises:
        InvalidRequest: there is none.
    """
    if home := os.environ.get("HOME"):
        return Path(home)
    import pwd

    try:
        return Path(pwd.getpwuid(user_number()).pw_dir)
    except KeyError:
        raise _invalid(f"uid {user_number()} has no home folder; set HOME") from None


def trusted_owners() -> frozenset[int]:
    """Returns root and the effective user; under sudo also the invoking user, as in git."""
    owners = {*host_owners(), os.geteuid()}
    if os.geteuid() == 0 and (typed_by := os.environ.get("SUDO_UID", "")).isdecimal():
        owners.add(int(typed_by))
    return frozenset(owners)


def host_owners() -> frozenset[int]:
    """Returns root, also as shown in a user namespace that does not map it."""
    return frozenset({0} if _maps_all_users() else {0, _OVERFLOW_UID})


def untrusted(path: Path, owners: frozenset[int]) -> str:
    """Returns why another user may have written a path; empty if no other user can.

    Checks the path itself and its parent folder, both as named and after resolving symbolic links.

    Args:
        path: absolute path that exists.
        owners: the trusted owners.
    """
    real = path.resolve()
    for one in dict.fromkeys((path.parent, path, real.parent, real)):
        about = one.lstat()
        if about.st_uid not in owners:
            return f"{one} belongs to {_name_of(about.st_uid)}"
        if stat.S_ISLNK(about.st_mode) or not about.st_mode & _OTHERS:
            continue
        if about.st_mode & stat.S_ISVTX and one not in (path, real):
            continue  # like /tmp: other users are unable to replace its entries
        if not about.st_mode & stat.S_IWOTH and _is_private_group(about):
            continue
        return f"{one} can be written by other users"
    return ""


def readable_folder(path: Path) -> Path:
    """Creates a folder, with parents, that other users can read and not write, with any umask."""
    for folder in reversed((path, *path.parents)):
        if not folder.exists():
            folder.mkdir(exist_ok=True)
            folder.chmod(0o755)
    return path


def private_folder(path: Path, setting: str) -> Path:
    """Creates a private folder with mode 0700; missing parents get the same mode.

    Args:
        path: path of the folder.
        setting: names the folder in the configuration or the environment, for messages.

    Raises:
        InvalidRequest: it is a link or no folder, belongs to another user, is writable for others,
            or creating it failed. Files that another user may have put there are not trusted.
    """
    with opened_private_folder(path, setting):
        return path


@contextmanager
def opened_private_folder(path: Path, setting: str) -> Iterator[int]:
    """Like `private_folder`; yields a descriptor of the folder for the length of a block."""
    try:
        for folder in reversed((path, *path.parents)):
            if not os.path.lexists(folder):
                with contextlib.suppress(FileExistsError):  # another process was faster
                    folder.mkdir(mode=0o700)
        if path.is_symlink() or not path.is_dir():
            raise _invalid(
                f"{path} is not a directory; remove it, "
                f"or set {setting} to a directory that you own"
            )
        handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise _invalid(
            f"{path} cannot be used: {error.strerror}; set {setting} to a directory that you own"
        ) from error
    try:
        about = os.fstat(handle)
        if about.st_uid != os.geteuid():
            raise _invalid(
                f"{path} does not belong to this user but to {_name_of(about.st_uid)}; "
                f"set {setting} to a directory that you own"
            )
        if about.st_mode & _OTHERS:
            raise _invalid(
                f"other users can write to {path}; 'chmod 700 {path}' when its content is yours, "
                f"or set {setting} to a directory that you own"
            )
        if stat.S_IMODE(about.st_mode) != 0o700:
            os.fchmod(handle, 0o700)
        yield handle
    finally:
        os.close(handle)


def write_private_file(path: Path, content: str | bytes, folder: int | None = None) -> None:
    """Writes a file with mode 0600, with any umask; does not follow a symbolic link.

    Args:
        path: path of the file.
        content: replaces that of an existing file.
        folder: descriptor of the folder that a relative path starts from; None for the current one.

    Raises:
        OSError: writing failed.
    """
    handle = os.open(
        path,
        os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC,
        0o600,
        dir_fd=folder,
    )
    with os.fdopen(handle, "wb") as stream:
        os.fchmod(handle, 0o600)
        stream.write(content.encode() if isinstance(content, str) else content)


def _is_private_group(about: os.stat_result) -> bool:
    """Returns whether a group is root's, or a user's own, with the user's number."""
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


def _invalid(text: str) -> InvalidRequest:
    # Imported when there is an error: the package of the contract takes time.
    from vc_core.spec.errors import InvalidRequest

    return InvalidRequest(text)
