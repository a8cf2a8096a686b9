"""Builds a guest's view of a folder of the host, as a detached mount.

Parts are hidden in the mount itself, where the guest has no way around. Views of several steps are
built in a thread with a mount namespace of its own: no other process sees them incomplete, and
nothing is left when this process is killed.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Collection, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from vc_core.driver_kit import mountinfo
from vc_core.driver_kit.mountinfo import MountPoint
from vc_core.engine.host import mount_calls
from vc_core.engine.host.mount_calls import NODEV, NOEXEC, NOSUID, RDONLY, opened
from vc_core.spec.errors import StorageError

# File systems of the kernel: they reveal this host and its processes (/proc/kcore is its memory),
# and daemons mistake control groups in the mount table for the host's own.
_OF_KERNEL = frozenset(
    (
        *(
            "proc",
            "sysfs",
            "devtmpfs",
            "devpts",
            "mqueue",
            "hugetlbfs",
            "nsfs",
            "cgroup",
            "cgroup2",
            "cpuset",
        ),
        *(
            "debugfs",
            "tracefs",
            "securityfs",
            "pstore",
            "bpf",
            "configfs",
            "fusectl",
            "efivarfs",
            "binfmt_misc",
        ),
        *("rpc_pipefs", "selinuxfs", "smackfs", "autofs", "resctrl", "nfsd"),
    )
)
# Paths of the host's root that every container has of its own, instead of those of the
# host's services.
_EMPTY = tuple(Path(name) for name in ("/dev", "/proc", "/run", "/sys", "/tmp"))
_OPAQUE = "trusted.overlay.opaque"  # Documentation/filesystems/overlayfs.rst
_ACLS = ("system.posix_acl_access", "system.posix_acl_default")


def tree(origin: int, source: Path, recursive: bool, covered: Collection[Path] = ()) -> int:
    """Returns a view of a file or folder.

    Args:
        origin: a descriptor of it.
        source: its path.
        recursive: whether mounts below are included.
        covered: folders in it whose contents are hidden.

    Raises:
        OSError: the kernel refused.
    """
    inside = [path for path in covered if source in path.parents]
    below = mountinfo.below(source) if recursive else []
    unbindable = _unbindable(below)
    if not inside and not any(one.fstype in _OF_KERNEL for one in below):
        return mount_calls.clone(origin, recursive)
    about = os.fstat(origin)

    def make() -> int:
        with opened(mount_calls.open_plain(source)) as again:
            if not os.path.samestat(os.fstat(again), about):
                raise StorageError(f"{source} was replaced while it was being mounted; try again")
            with opened(mount_calls.clone(again)) as top:
                mount_calls.attach(top, again)
                shown = _shown(again, source, unbindable) if recursive else ()
                _add_below(again, source, top, shown, mount_calls.clone)
                _cover(top, source, inside)
                return mount_calls.clone(top, recursive=True)

    return _apart(make)


def host_root(hidden: Collection[Path]) -> int:
    """Returns a view of the host's root without hidden paths and kernel file systems.

    Nothing is mounted on the host's own files, which would prevent the host from renaming them:
    each file system with hidden paths is seen through an overlay without these names.

    Args:
        hidden: paths, existing or not.

    Raises:
        OSError, StorageError: the kernel refused.
    """
    root = Path("/")
    unbindable = _unbindable(mountinfo.below(root))

    def make() -> int:
        with opened(mount_calls.open_plain(root)) as origin:
            found = _shown(origin, root, unbindable)
            shown = [
                one
                for one in found
                if not any(path in (one.point, *one.point.parents) for path in _EMPTY)
            ]
            points = {root, *(one.point for one in shown)}
            names = [
                path
                for path in hidden
                if not any(empty in (path, *path.parents) for empty in _EMPTY)
            ]
            owners = {path: _deepest(points, path) for path in (*names, *_EMPTY)}

            def view(descriptor: int, point: Path = root) -> int:
                mine = [path for path, owner in owners.items() if owner == point]
                return _without(descriptor, point, mine) if mine else mount_calls.clone(descriptor)

            with opened(view(origin)) as top:
                mount_calls.attach(top, origin)
                _add_below(origin, root, top, shown, view)
                return mount_calls.clone(top, recursive=True)

    return _apart(make)


def _apart(make: Callable[[], int]) -> int:
    def run() -> int:
        mount_calls.own_namespace()
        return make()

    with ThreadPoolExecutor(1) as thread:  # gone at the end of the block, with its mount namespace
        return thread.submit(run).result()


def _unbindable(mounts: Iterable[MountPoint]) -> frozenset[Path]:
    """Returns the unbindable mounts; a copied namespace loses the flag in some kernels (6.17)."""
    return frozenset(one.point for one in mounts if "unbindable" in one.tags)


def _shown(origin: int, source: Path, unbindable: Collection[Path]) -> list[MountPoint]:
    """Returns the visible, bindable mounts below, in the order of mounting."""
    left_out: list[Path] = []
    found = []
    for one in mountinfo.below(source):
        if one.fstype in _OF_KERNEL or one.point in unbindable:
            left_out.append(one.point)
        elif not any(path in one.point.parents for path in left_out) and _is_seen(
            origin, source, one
        ):
            found.append(one)
    return found


def _is_seen(origin: int, source: Path, mount: MountPoint) -> bool:
    """Returns whether a mount is not hidden by a later one."""
    try:
        with opened(mount_calls.open_plain(mount.point.relative_to(source), at=origin)) as point:
            return mount_calls.mount_id(point) == mount.id
    except OSError:
        return False


def _add_below(
    origin: int, source: Path, top: int, mounts: Iterable[MountPoint], view: Callable[..., int]
) -> None:
    for one in mounts:
        inner = one.point.relative_to(source)
        with opened(mount_calls.open_plain(inner, at=origin)) as point:
            made = view(point) if view is mount_calls.clone else view(point, one.point)
        with opened(made) as mount:
            try:
                with opened(mount_calls.open_plain(inner, at=top)) as target:
                    mount_calls.attach(mount, target)
            except FileNotFoundError:
                continue  # in a hidden path


def _cover(top: int, source: Path, folders: Iterable[Path]) -> None:
    for path in folders:
        try:
            target = mount_calls.open_plain(path.relative_to(source), at=top)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                continue  # does not exist; or visible at another path
            raise
        with opened(target), opened(_empty_like(target)) as cover:
            mount_calls.attach(cover, target)


def _empty_like(target: int) -> int:
    """Returns a detached mount of an empty folder or file."""
    if stat.S_ISDIR(os.fstat(target).st_mode):
        return _memory("0000", RDONLY)
    with opened(_memory("0700")) as folder:
        os.close(os.open("empty", os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0, dir_fd=folder))
        _put_aside(folder)
        with opened(mount_calls.open_plain("empty", at=folder)) as file:
            return mount_calls.clone(file)


def _put_aside(mount: int) -> None:
    """Attaches a mount where no view shows it.

    Only an attached mount can be a layer of an overlay or be bound.
    """
    with opened(mount_calls.open_plain("/dev")) as place:
        mount_calls.attach(mount, place)


def _without(origin: int, point: Path, hidden: Iterable[Path]) -> int:
    """Returns a view of a file system without some names."""
    with opened(_memory("0755")) as layer:
        with opened(_readable(".", origin)) as real, opened(_readable(".", layer)) as copy:
            _resemble(real, copy)
        visible: dict[Path, bool] = {}
        for path in hidden:
            _hide(origin, layer, path.relative_to(point), path in _EMPTY, visible)
        _put_aside(layer)
        lower = f"/proc/self/fd/{layer}:/proc/self/fd/{origin}"
        try:
            # With xino, inode numbers are those of the layers: a fork finds its files by them in
            # its own view.
            return mount_calls.new_file_system("overlay", RDONLY, lowerdir=lower, xino="on")
        except OSError as error:
            raise StorageError(
                f"secrets on {point} cannot be hidden, "
                f"for this kernel makes no overlay of it ({error.strerror}); give "
                "an image, another --rootfs, or --show-secrets"
            ) from error


def _memory(mode: str, attributes: int = 0) -> int:
    return mount_calls.new_file_system("tmpfs", attributes | NOSUID | NODEV | NOEXEC, mode=mode)


def _hide(
    origin: int, layer: int, inner: Path, is_emptied: bool, visible: dict[Path, bool]
) -> None:
    """Hides a name, or the first missing folder of its path.

    Args:
        origin: the file system.
        layer: the layer that hides names of it.
        inner: path below both.
        is_emptied: whether an empty folder takes its place.
        visible: whether names below a folder can be seen, for each folder that was looked at: most
            hidden names are in a few folders.
    """
    for parent in [*reversed(inner.parents)][1:]:  # the first is the top itself
        if parent not in visible:
            visible[parent] = _has_names(origin, layer, parent)
        if not visible[parent]:
            return
    if is_emptied:
        os.mkdir(inner, 0o755, dir_fd=layer)
        with opened(_readable(inner, layer)) as folder:
            os.setxattr(folder, _OPAQUE, b"y")
    else:
        _whiteout(layer, inner)


def _has_names(origin: int, layer: int, folder: Path) -> bool:
    """Makes a folder in the layer like that of the file system, or hides the missing one.

    Returns whether names below it can be seen.
    """
    try:
        with opened(_readable(folder, origin)) as real:
            if not _is_there(layer, folder):
                os.mkdir(folder, dir_fd=layer)
            with opened(_readable(folder, layer)) as copy:
                _resemble(real, copy)
    except FileNotFoundError:
        _whiteout(layer, folder)
        return False
    except NotADirectoryError:
        return False  # a file, or a whiteout of this view
    except OSError as error:
        if error.errno == errno.ELOOP:
            return False  # the target of a link is hidden by its own path
        raise
    return True


def _whiteout(layer: int, inner: Path) -> None:
    try:
        os.mknod(inner, stat.S_IFCHR, os.makedev(0, 0), dir_fd=layer)
    except FileExistsError:
        if not stat.S_ISDIR(os.stat(inner, dir_fd=layer, follow_symlinks=False).st_mode):
            return  # hidden already
        raise


def _readable(inner: Path | str, at: int) -> int:
    return mount_calls.open_plain(inner, os.O_RDONLY | os.O_DIRECTORY, at=at)


def _is_there(folder: int, inner: Path) -> bool:
    try:
        os.stat(inner, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _resemble(real: int, copy: int) -> None:
    """Copies attributes: an overlay shows a folder with those of its uppermost layer."""
    about = os.fstat(real)
    os.fchown(copy, about.st_uid, about.st_gid)
    os.fchmod(copy, stat.S_IMODE(about.st_mode))
    names = os.listxattr(real)
    for name in _ACLS:
        if name in names:
            os.setxattr(copy, name, os.getxattr(real, name))
    os.utime(copy, ns=(about.st_atime_ns, about.st_mtime_ns))


def _deepest(points: Collection[Path], path: Path) -> Path:
    return next(parent for parent in path.parents if parent in points)
