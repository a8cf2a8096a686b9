"""The meaning of SOURCE and TARGET of a copy: the rules of `docker cp`, with one exception.

https://docs.docker.com/reference/cli/docker/container/cp/. The exception: a TARGET of this host
that is a symbolic link is not followed unless it ends in "/". A guest may have created that link in
an earlier copy.
"""

from __future__ import annotations

import os
import posixpath
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vc_core.engine.host.tar_unpacking import Destination
from vc_core.spec.errors import InvalidRequest, NotFound, StorageError

CONTENT = "."  # the name that stands for the contents of a folder
_FOLDER = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC


def is_content(path: str) -> bool:
    """Returns whether a source means the contents of a folder: "folder/." and "."."""
    return path.rstrip("/").endswith("/.") or path.rstrip("/") == "."


def name_of(path: str) -> str:
    """Returns the name of a container's file in an archive."""
    return CONTENT if is_content(path) else posixpath.basename(posixpath.normpath(path)) or CONTENT


@contextmanager
def opened(path: str, target: str) -> Iterator[Destination]:
    """Opens the destination on this host for a copy of a container's file.

    Args:
        path: path in the container.
        target: path on this host.

    Raises:
        NotFound: there is no folder to copy it into.
        InvalidRequest: the target is a device, or a link.
    """
    if not target:
        raise InvalidRequest("a copy needs a target, a path of this host")
    asked = name_of(path)
    is_folder = target.endswith("/") or is_content(target)
    existing = _stat(target, is_folder)
    if existing is not None and stat.S_ISLNK(existing.st_mode) and Path(target).is_dir():
        raise InvalidRequest(
            f"{target} is a symbolic link, which a copy does not follow; "
            f"write {target}/ to follow it"
        )
    if existing is not None and (stat.S_ISBLK(existing.st_mode) or stat.S_ISCHR(existing.st_mode)):
        raise InvalidRequest(
            f"{target} is a device; copy to a file or a directory, or to - for a tar archive"
        )
    if existing is not None and stat.S_ISDIR(existing.st_mode):
        with _open(target, 0 if is_folder else os.O_NOFOLLOW) as folder:
            name = "" if asked == CONTENT else asked
            yield Destination(folder, Path(target), asked, name, is_folder=asked == CONTENT)
        return
    parent, name = posixpath.split(without_end(target))
    with _open(parent or ".") as folder:
        must = is_folder or asked == CONTENT
        yield Destination(
            folder, Path(parent), asked, name, is_folder=must, replaces_file=existing is not None
        )


def _stat(path: str, follows: bool) -> os.stat_result | None:
    """Returns None when the path does not exist."""
    try:
        return os.stat(path, follow_symlinks=follows)  # noqa: PTH116 (a Path drops the last /, which counts)
    except FileNotFoundError:
        return None
    except NotADirectoryError:
        raise InvalidRequest(
            f"{path}: it, or a part of its path, is not a directory on this host"
        ) from None
    except (OSError, ValueError) as error:
        raise StorageError(f"{path!r} cannot be reached: {error}") from error


def without_end(path: str) -> str:
    """Returns a path without "/" and "/." at its end."""
    plain = path.rstrip("/")
    return without_end(plain[:-2]) if plain.endswith("/.") else plain or "/"


@contextmanager
def _open(path: str, flags: int = 0) -> Iterator[int]:
    try:
        handle = os.open(path, _FOLDER | flags)
    except (FileNotFoundError, NotADirectoryError):
        raise NotFound(f"there is no directory {path} on this host") from None
    except OSError as error:
        raise StorageError(f"{path} cannot be opened: {error.strerror}") from error
    try:
        yield handle
    finally:
        os.close(handle)


def source(path: str) -> tuple[Path, str, str]:
    """Resolves a file or folder of this host that is to be copied.

    Returns its parent folder, its name there, and its name in an archive. Both names are CONTENT
    for the contents of a folder. A link is followed when it ends in "/".

    Raises:
        NotFound: it does not exist.
        InvalidRequest: it is a socket, or ends in "/" and is no folder.
    """
    follows = path.endswith("/") or is_content(path)
    existing = _stat(path, follows) if path else None
    if existing is None:
        raise NotFound(f"there is no {path} on this host")
    if stat.S_ISSOCK(existing.st_mode):
        raise InvalidRequest(f"{path} is a socket, which cannot be copied")
    if is_content(path):
        return Path(path), CONTENT, CONTENT
    plain = Path(path)
    if plain.name in ("", ".."):  # "/" and "..": their name in an archive differs
        plain = plain.resolve()
    if not plain.name:
        return plain, CONTENT, CONTENT
    if plain.is_symlink() and follows:
        return plain, CONTENT, plain.name  # tar(1) does not follow it
    return plain.parent, plain.name, plain.name
