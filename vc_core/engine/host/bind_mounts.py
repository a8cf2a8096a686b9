"""Binds files and folders of the host into a folder of the pod, under random names. Root only.

The folder is a tmpfs of its own with a read-only mount. A guest sees it through that mount, and can
neither create nor replace anything in it. Each bind in it is writable or read-only by itself. To
add a mount point, a second, writable mount of the same tmpfs is created; it is never attached to a
path, and is gone when its descriptor is closed. Source and target are opened once, without
following links, and are given to the kernel as descriptors only (see docs/decisions/0020).
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Collection
from pathlib import Path

from vc_core.engine.host import folder_view, mount_calls, source_paths, tree_removal
from vc_core.engine.host.mount_calls import (
    NODEV,
    NOEXEC,
    NOSUID,
    PRIVATE,
    RDONLY,
    SHARED,
    UNBINDABLE,
    opened,
)
from vc_core.spec.errors import InvalidRequest, StorageError

_PLACE = os.O_RDONLY | os.O_DIRECTORY


def prepare(folder: Path) -> None:
    """Prepares a folder for binds; one that is prepared already stays unchanged.

    Raises:
        StorageError: the kernel refused.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        with opened(mount_calls.open_plain(folder.resolve(), _PLACE)) as below:
            if _is_place(below):
                return
            attributes = RDONLY | NOSUID | NODEV | NOEXEC
            with opened(
                mount_calls.new_file_system("tmpfs", attributes, mode="0700", size="64k")
            ) as place:
                mount_calls.attach(place, below)
                # Hypervisors may run in mount namespaces of their own, and must see later mounts.
                mount_calls.change(place, propagation=SHARED)
    except OSError as error:
        raise StorageError(
            f"{folder} cannot be prepared for bind mounts: {error.strerror}"
        ) from error


def add(
    source: Path,
    folder: Path,
    read_only: bool,
    recursive: bool,
    name: str = "",
    covered: Collection[Path] = (),
    is_share: bool = False,
) -> str:
    """Binds a file or folder into the folder; returns its name there.

    File systems of the kernel (proc, control groups) are not included; set-uid programs and device
    nodes do not work through the bind.

    Args:
        source: absolute path on this host, without links.
        folder: folder of the pod; prepared for binds if necessary.
        read_only: enforced on the host, for everything that is included.
        recursive: whether mounts below the source are included.
        name: a unique name; generated when empty.
        covered: folders in the source whose contents are hidden.
        is_share: whether it is shared by itself, not with the folder: hypervisors may have to bind
            it once more.

    Raises:
        InvalidRequest: the source is gone, or was replaced.
        StorageError: the kernel refused; nothing of the bind is left.
    """
    with opened(source_paths.opened_plainly(source)) as origin:
        mode = os.fstat(origin).st_mode
        is_folder = stat.S_ISDIR(mode)
        if not is_folder and not stat.S_ISREG(mode):
            raise InvalidRequest(
                f"{source} is neither a directory nor a plain file any more; "
                "put back what was there"
            )

        def make() -> int:
            tree = folder_view.tree(origin, source, recursive, covered)
            return _guarded(tree, NOSUID | NODEV | (RDONLY if read_only else 0))

        return _put(make, source, folder, name, is_folder, is_share)


def add_host_root(folder: Path, name: str, hidden: Collection[Path], is_share: bool = False) -> str:
    """Binds the host's root, read-only, without hidden paths and kernel file systems.

    Like `add`.
    """
    return _put(
        lambda: _guarded(folder_view.host_root(hidden), NOSUID | NODEV | RDONLY),
        Path("/"),
        folder,
        name,
        True,
        is_share,
    )


def is_bound(folder: Path, name: str) -> bool:
    """Returns whether something is bound under a name."""
    try:
        with (
            opened(mount_calls.open_plain(folder.resolve())) as place,
            opened(mount_calls.open_plain(name, at=place)) as target,
        ):
            return mount_calls.mount_id(target) != mount_calls.mount_id(place)
    except FileNotFoundError:
        return False


def _put(
    make: Callable[[], int], source: Path, folder: Path, name: str, is_folder: bool, is_share: bool
) -> str:
    name = name or os.urandom(8).hex()
    prepare(folder)
    try:
        with opened(make()) as tree:
            _attach(tree, folder, name, is_folder)
            # Unbindable: another pod's bind of the host's root would include it, and keep it busy.
            # Only now: the kernel attaches no such mount where mounts are propagated.
            mount_calls.change(tree, propagation=PRIVATE if is_share else UNBINDABLE)
    except OSError as error:
        remove(folder, name)
        raise StorageError(f"{source} cannot be bound into the pod: {error.strerror}") from error
    except BaseException:
        remove(folder, name)
        raise
    return name


def _guarded(tree: int, attributes: int) -> int:
    try:
        mount_calls.change(tree, attributes, propagation=PRIVATE)
    except BaseException:
        os.close(tree)
        raise
    return tree


def remove(folder: Path, name: str) -> None:
    """Removes a bind of `add`; one that is gone is no error.

    Raises:
        StorageError: the kernel refused.
    """
    if not name:
        return
    target = folder / name
    try:
        while mount_calls.unmount(target):
            pass  # mounts may be stacked
        with opened(mount_calls.open_plain(folder.resolve(), _PLACE)) as place:
            if not _is_place(place):
                # Of a machine that an older version started: its folder is emptied with the pod.
                return
            with opened(_writable(place)) as room:
                _remove_point(room, name)
    except FileNotFoundError:
        return
    except OSError as error:
        raise StorageError(f"{target} cannot be unmounted: {error.strerror}") from error


def remove_all(folder: Path) -> None:
    """Unmounts everything in the folder; the folder itself stays.

    Raises:
        StorageError: the kernel refused; names what is left.
    """
    if not folder.is_dir():
        return
    try:
        if os.geteuid() == 0:  # only root mounts something here
            while mount_calls.unmount(folder):
                pass
            for entry in folder.iterdir():  # of a machine that an older version started
                while mount_calls.unmount(entry):
                    pass
    except OSError as error:
        raise StorageError(
            f"{error.filename or folder} cannot be unmounted: {error.strerror}"
        ) from error
    tree_removal.empty(folder)


def _attach(tree: int, folder: Path, name: str, is_folder: bool) -> None:
    with opened(mount_calls.open_plain(folder.resolve(), _PLACE)) as place:
        with opened(_writable(place)) as room:
            if is_folder:
                os.mkdir(name, 0o700, dir_fd=room)
            else:
                os.close(
                    os.open(
                        name,
                        os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC,
                        0o600,
                        dir_fd=room,
                    )
                )
        with opened(mount_calls.open_plain(name, at=place)) as point:
            mount_calls.attach(tree, point)


def _writable(place: int) -> int:
    """Returns a private, writable mount of the same file system, to add and remove mount points."""
    room = mount_calls.clone(place)
    try:
        mount_calls.change(room, clear=RDONLY, propagation=PRIVATE)
    except BaseException:
        os.close(room)
        raise
    return room


def _remove_point(room: int, name: str) -> None:
    try:
        is_folder = stat.S_ISDIR(os.stat(name, dir_fd=room, follow_symlinks=False).st_mode)
        if is_folder:
            os.rmdir(name, dir_fd=room)
        else:
            os.unlink(name, dir_fd=room)
    except FileNotFoundError:
        return
    except OSError as error:
        if (
            error.errno != errno.EBUSY
        ):  # the whole folder is bound elsewhere, too; it is removed with the pod
            raise


def _is_place(folder: int) -> bool:
    """Returns whether a folder is a place for binds: a read-only mount of a tmpfs."""
    found = os.fstatvfs(folder)
    with opened(os.open("..", os.O_PATH | os.O_CLOEXEC, dir_fd=folder)) as parent:
        is_mounted = mount_calls.mount_id(parent) != mount_calls.mount_id(folder)
    return is_mounted and bool(found.f_flag & os.ST_RDONLY)
