"""The root of the jail: a tmpfs that contains the files of QEMU and the pod, and no others."""

from __future__ import annotations

import contextlib
import os
import stat

from vc_qemu.jail import calls
from vc_qemu.jail.calls import NODEV, NOEXEC, NOSUID, PRIVATE, RDONLY, Opened

TYPE_CHECKING = False  # typing takes long to import
if TYPE_CHECKING:
    from collections.abc import Iterable

    File = tuple[str, str, str]
    Share = tuple[str, str, bool]

_FLAGS = {"r": RDONLY | NODEV, "w": NODEV | NOEXEC, "d": NOEXEC}
_SIZE = "1m"  # it has mount points only
_ESCAPES = (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\"))
# File systems of the kernel: they reveal this host and its processes, and /proc/PID/root is a way
# out of every root.
_KERNEL = frozenset(
    "proc sysfs devtmpfs devpts mqueue hugetlbfs nsfs cgroup cgroup2 cpuset debugfs tracefs"  # noqa: SIM905
    " securityfs pstore bpf configfs fusectl efivarfs binfmt_misc rpc_pipefs selinuxfs smackfs"
    " autofs resctrl nfsd".split()
)


def enter(
    place: str,
    files: Iterable[File],
    shares: Iterable[Share],
    folders: Iterable[str],
    may_move: bool,
) -> None:
    """Creates the root and changes to it. The mount namespace must belong to this thread alone.

    Args:
        place: a folder where the root is mounted meanwhile.
        files: path on the host, path in the jail, and mode: "r" read-only, "w" writable, "d" a
            device node.
        shares: folder on the host, folder in the jail, whether it is read-only.
        folders: empty folders, as mount points for later mounts.
        may_move: whether a share that is a mount point may be moved instead of copied. A moved one
            includes unbindable mounts, and later mounts below it.

    Raises:
        OSError: the kernel refused.
    """
    receive_mounts()
    files, shares = tuple(files), tuple(shares)
    with Opened() as opened:
        # All are opened before anything is covered.
        origins = [opened.path(path) for path, _, _ in files]
        sources = [opened.path(path, os.O_DIRECTORY) for path, _, _ in shares]
        trees = [
            tree(source, path, read_only, may_move=may_move)
            for source, (path, _, read_only) in zip(sources, shares, strict=True)
        ]
        for bound, _ in trees:
            opened.add(bound)
        point = opened.path(place, os.O_DIRECTORY)
        root = opened.add(calls.tmpfs(_SIZE))
        calls.attach(root, point)
        made: set[str] = set()
        for origin, (_, target, how) in zip(origins, files, strict=True):
            with Opened() as inner:
                bound = inner.add(calls.clone(origin, recursive=False))
                calls.change(bound, NOSUID | _FLAGS[how], PRIVATE)
                is_folder = stat.S_ISDIR(os.fstat(origin).st_mode)
                calls.attach(bound, inner.add(_mount_point(root, target, is_folder, made)))
        for (bound, hidden), (_, target, _) in zip(trees, shares, strict=True):
            with Opened() as inner:
                calls.attach(bound, inner.add(_mount_point(root, target, True, made)))
            cover(bound, hidden)
        for target in folders:
            os.close(_mount_point(root, target, True, made))
        calls.change(root, RDONLY, PRIVATE, recursive=False)
        calls.change_root(root)


def tree(
    origin: int, path: str, read_only: bool, may_move: bool = False, has_devices: bool = False
) -> tuple[int, list[str]]:
    """Returns a tree of mounts that shows a folder with the mounts below it.

    Args:
        origin: a descriptor of the folder.
        path: path of the folder, without links.
        read_only: also for mounts below.
        may_move: as for `enter`.
        has_devices: whether device nodes in it can be opened.

    Returns:
        A descriptor of the tree, and the folders in it that `cover` must cover.
    """
    before = _mounts_in(path)
    if may_move and path != "/" and any(point == path for point, _ in before):
        return os.open(path, os.O_PATH | os.O_CLOEXEC), []  # it is as it shall be
    copy = calls.clone(origin, recursive=True)
    try:
        attributes = NOSUID | (0 if has_devices else NODEV) | (RDONLY if read_only else 0)
        calls.change(copy, attributes, PRIVATE)
        after = _mounts_in(path)  # others mount and unmount meanwhile
    except BaseException:
        os.close(copy)
        raise
    hidden = {point for point, kind in before + after if kind in _KERNEL and point != path}
    return copy, sorted(os.path.relpath(point, path) for point in hidden)


def cover(copy: int, names: Iterable[str]) -> None:
    """Mounts empty folders over parts of a tree that is attached, as Linux < 6.15 requires.

    In a folder that this user may not search, the whole folder is covered: its owner may open it
    to others later.
    """
    with Opened() as opened:
        for name in names:
            try:
                target = _reachable(opened, copy, name)
            except (FileNotFoundError, NotADirectoryError):
                continue  # below a covered folder; or a namespace, which requires privileges
            empty = opened.add(calls.tmpfs("4k"))
            calls.change(empty, RDONLY, PRIVATE)
            calls.attach(empty, target)


def _reachable(opened: Opened, copy: int, name: str) -> int:
    """Opens a folder of a tree, or the first on the way to it that this user may not search."""
    while True:
        try:
            return opened.path(name, os.O_DIRECTORY, copy)
        except PermissionError:
            parent = os.path.dirname(name)  # noqa: PTH120 (pathlib takes long to import)
            if not parent:
                raise  # the tree itself
            name = parent


def receive_mounts() -> None:
    """Hides mounts of this namespace elsewhere, and receives later mounts of the host."""
    with Opened() as opened:
        calls.change(opened.path("/"), 0, calls.SLAVE)


def _mounts_in(path: str) -> list[tuple[str, str]]:
    prefix = path.rstrip("/") + "/"
    return [(point, kind) for point, kind in _mounts() if point == path or point.startswith(prefix)]


def _mounts() -> list[tuple[str, str]]:
    """Returns mount points and the types of their file systems: proc(5), mountinfo."""
    found = []
    table = "/proc/thread-self/mountinfo"
    # Any user may mount on a name that has what Python takes for the end of a line.
    with open(  # noqa: PTH123 (as above)
        table, encoding="utf-8", errors="surrogateescape", newline="\n"
    ) as file:
        for line in file:
            first, _, second = line.partition(" - ")
            point = first.split(" ")[4]
            for code, char in _ESCAPES:
                point = point.replace(code, char)
            found.append((point, second.split(" ")[0]))
    return found


def _mount_point(root: int, path: str, is_folder: bool, made: set[str]) -> int:
    """Creates a mount point with its parent folders; returns a descriptor of it."""
    path = path.strip("/")
    *parents, name = path.split("/")
    folder = ""
    for part in [*parents, name] if is_folder else parents:
        folder = f"{folder}/{part}" if folder else part
        if folder not in made:
            with contextlib.suppress(FileExistsError):  # in a folder that is bound
                os.mkdir(folder, 0o755, dir_fd=root)
            made.add(folder)
    if not is_folder:
        flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC
        os.close(os.open(path, flags, 0o600, dir_fd=root))
    return os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=root)
