"""Remembers where the plugins of the installed distributions are, for as long as nothing changes.

Reading the metadata of all distributions takes longer than anything else that a short command does.
What is remembered is tied to the files of entry points that Python finds, and to their times, as in
the cache of stevedore.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from zlib import crc32

import msgspec

from vc_core.driver_kit.ownership import opened_private_folder, write_private_file
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


class _Memory(msgspec.Struct, frozen=True, kw_only=True):
    key: list[tuple[str, int]]
    plugins: list[KnownPlugin]


def recall() -> dict[tuple[str, str], KnownPlugin] | None:
    """Returns all plugins by family and name; None when nothing true is remembered."""
    key = _key()
    if key is None:
        return None
    try:
        with opened_private_folder(_folder(), "XDG_CACHE_HOME"):
            memory = msgspec.json.decode(_file().read_bytes(), type=_Memory)
    except (OSError, InvalidRequest, msgspec.MsgspecError) as error:
        log.debug("plugins are looked for: %s", error)
        return None
    if memory.key != key:
        return None
    return {(plugin.family, plugin.name): plugin for plugin in memory.plugins}


def remember(plugins: Iterable[KnownPlugin]) -> None:
    """Remembers the plugins that exist now. A folder that cannot be written is no error."""
    key = _key()
    if key is None:
        return
    data = msgspec.json.encode(_Memory(key=key, plugins=list(plugins)))
    half = _file().with_suffix(f".{os.getpid()}")
    try:
        with opened_private_folder(_folder(), "XDG_CACHE_HOME"):
            write_private_file(half, data)
            half.replace(_file())
    except (OSError, InvalidRequest) as error:
        log.debug("plugins are not remembered: %s", error)


def _key() -> list[tuple[str, int]] | None:
    """Returns the files of entry points with their times; None when they do not tell all."""
    if any(_finds_distributions(finder) for finder in sys.meta_path):
        return None
    key: list[tuple[str, int]] = []
    for folder in sys.path:
        try:
            with os.scandir(folder or ".") as found:
                names = sorted(one.name for one in found if one.name.endswith(_INFO))
        except FileNotFoundError:
            continue
        except NotADirectoryError:  # an archive may have some
            return None
        for name in names:
            key += _time_of(f"{folder}/{name}/entry_points.txt")
    return key


def _time_of(path: str) -> list[tuple[str, int]]:
    try:
        return [(path, os.stat(path).st_mtime_ns)]  # noqa: PTH116 (a hundred times in each process)
    except (FileNotFoundError, NotADirectoryError):
        return []


def _finds_distributions(finder: object) -> bool:
    """Returns whether it has distributions that are not in the folders of sys.path."""
    is_pythons = getattr(finder, "__module__", "") == "_frozen_importlib_external"
    return hasattr(finder, "find_distributions") and not is_pythons


def _folder() -> Path:
    if os.geteuid() == 0:
        return Path("/var/cache/virtcontainers/plugins")
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "virtcontainers/plugins"


def _file() -> Path:
    return _folder() / f"{crc32(os.fsencode(sys.prefix)):08x}.json"
