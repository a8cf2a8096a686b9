"""Remembers where the plugins of the installed distributions are, for as long as nothing changes.

Reading the metadata of all distributions takes longer than anything else that a short command does.
What is remembered is tied to the files of entry points that Python finds, and to their times, as in
the cache of stevedore.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from zlib import crc32

import msgspec

from vc_core.driver_kit.ownership import (
    home_folder,
    is_system_root,
    opened_private_folder,
    readable_folder,
    write_private_file,
)
from vc_core.spec.errors import InvalidRequest

log = logging.getLogger(__name__)

_INFO = (".dist-info", ".egg-info")


class KnownPlugin(msgspec.Struct, frozen=True, kw_only=True):
    """A plugin that one installed distribution offers.

    Attributes:
        family: from the entry-point group `vc_core.<family>`.
        name: its name in that group.
        module: name of its module.
        attribute: of the module; with dots for one of an attribute.
        distribution: name of its distribution.
        version: version of the distribution.
    """

    family: str
    name: str
    module: str
    attribute: str
    distribution: str
    version: str


Key = list[tuple[str, int]]
"""The files of entry points that Python finds, with their times in ns."""


class _Memory(msgspec.Struct, frozen=True, kw_only=True):
    key: Key
    plugins: list[KnownPlugin]


def recall() -> dict[tuple[str, str], KnownPlugin] | None:
    """Returns all plugins by family and name; None when nothing true is remembered."""
    current = key()
    if current is None:
        return None
    try:
        with _opened() as folder:
            memory = msgspec.json.decode(_read(folder), type=_Memory)
    except (OSError, InvalidRequest, msgspec.MsgspecError) as error:
        log.debug("plugins are looked for: %s", error)
        return None
    if memory.key != current:
        return None
    return {(plugin.family, plugin.name): plugin for plugin in memory.plugins}


def remember(plugins: Iterable[KnownPlugin], since: Key | None) -> None:
    """Remembers plugins. A folder that cannot be written is no error.

    Args:
        plugins: all that were found.
        since: the key before they were looked for. With None, or when it is another one now,
            nothing is remembered.
    """
    if since is None or key() != since:
        return
    try:
        data = msgspec.json.encode(_Memory(key=since, plugins=list(plugins)))
        with _opened() as folder:
            _replace(folder, data)
    except (OSError, InvalidRequest, UnicodeEncodeError) as error:  # a path that is not UTF-8
        log.debug("plugins are not remembered: %s", error)


def key() -> Key | None:
    """Returns what changes when a plugin is added or changed; None when nothing tells that.

    Folders and files without permission are left out, as Python does when it imports and when it
    looks for distributions.
    """
    if any(_finds_distributions(finder) for finder in sys.meta_path):
        return None
    found: Key = []
    for folder in sys.path:
        if not isinstance(folder, str) or not folder.startswith("/"):
            return None  # another folder after a change of the current one
        try:
            with os.scandir(folder) as entries:
                names = sorted(one.name for one in entries if one.name.endswith(_INFO))
            for name in names:
                found += _time_of(f"{folder}/{name}/entry_points.txt")
        except (FileNotFoundError, PermissionError):
            continue
        except (OSError, ValueError):  # an archive may have some; a path may hold a null byte
            return None
    return found


def _time_of(path: str) -> Key:
    try:
        return [(path, os.stat(path).st_mtime_ns)]  # noqa: PTH116 (a hundred times in each process)
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return []


def _read(folder: int) -> bytes:
    """Reads the file of an opened folder; does not follow a link."""
    handle = os.open(
        _name(), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder
    )
    with os.fdopen(handle, "rb") as stream:
        return stream.read()


def _replace(folder: int, data: bytes) -> None:
    """Replaces the file of an opened folder as a whole."""
    half = f".{_name()}.{os.urandom(4).hex()}"
    try:
        write_private_file(Path(half), data, folder)
        os.rename(half, _name(), src_dir_fd=folder, dst_dir_fd=folder)
    except OSError:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(half, dir_fd=folder)
        raise


def _finds_distributions(finder: object) -> bool:
    """Returns whether it has distributions that are not in the folders of sys.path."""
    is_pythons = getattr(finder, "__module__", "") == "_frozen_importlib_external"
    return hasattr(finder, "find_distributions") and not is_pythons


@contextlib.contextmanager
def _opened() -> Iterator[int]:
    """Yields the descriptor of the folder."""
    folder = _folder()
    if is_system_root():  # other users read root's guest image beside it
        readable_folder(folder.parent)
    with opened_private_folder(folder, "XDG_CACHE_HOME") as descriptor:
        yield descriptor


def _folder() -> Path:
    if is_system_root():
        return Path("/var/cache/virtcontainers/plugins")
    cache = os.environ.get("XDG_CACHE_HOME") or home_folder() / ".cache"
    return Path(cache) / "virtcontainers/plugins"


def _name() -> str:
    return f"{crc32(os.fsencode(sys.prefix)):08x}.json"
