"""Paths of the host's root that are hidden from guests: configured secrets, and the stores.

There are a hundred of them, and text is compared several times as fast as `Path`.
"""

from __future__ import annotations

import functools
import glob
import os
from collections.abc import Collection, Iterable
from pathlib import Path

from vc_core.config import Config, field_names
from vc_core.engine.wiring import options
from vc_core.engine.wiring.catalog import Catalog

_USERS = Path("/etc/passwd")
_FIRST_USER, _NOBODY = 1000, 65534
_HOME = "~/"


def stores(config: Config, catalog: Catalog) -> tuple[Path, ...]:
    """Returns the folders of the core, and those named by options of the store and the agent."""
    found = [
        config.template.dir,
        config.snapshot.dir,
        config.image.dir,
        config.data.dir,
        config.volume.dir,
    ]
    found += [Path(config.template.memory_dir)] if config.template.memory_dir else []
    for family, name in config.plugins():
        if family in ("storage", "agent"):
            parsed = options.parse(
                catalog.find(family, name), config.tables.get((family, name), {}), []
            )
            values = (
                [getattr(parsed, name) for name in field_names(type(parsed))]
                if parsed is not None
                else []
            )
            found += [value for value in values if isinstance(value, Path) and value.is_absolute()]
    return without_nested(path.resolve() for path in found)


def paths(patterns: Iterable[str]) -> tuple[Path, ...]:
    """Returns the paths on this host that match patterns of `pod.secret_paths`, existing or not.

    Args:
        patterns: absolute paths, or paths below "~/", which stands for every home; with the
            wildcards "*", "?" and "[...]" of a shell.
    """
    homes = sorted(_homes(), key=str)
    found: dict[str, None] = {}
    resolved = functools.cache(os.path.realpath)  # most patterns are in a few folders
    for pattern in patterns:
        tops = homes if pattern.startswith(_HOME) else [Path("/")]
        for top in tops:
            inner = pattern.removeprefix(_HOME).lstrip("/")
            for path in _matches(top, inner):
                folder, name = os.path.split(path)
                place = os.path.join(resolved(folder), name)  # noqa: PTH118
                found[place] = None
                if os.path.islink(place):  # noqa: PTH114
                    found[resolved(place)] = None
    found.pop("/", None)
    return tuple(Path(path) for path in found)


def without_nested(found: Iterable[Path]) -> tuple[Path, ...]:
    """Returns the paths without those inside another one."""
    every = {str(path): path for path in found}
    return tuple(path for text, path in every.items() if not _is_inside(text, every))


def _is_inside(path: str, folders: Collection[str]) -> bool:
    while path != "/":
        path = path.rpartition("/")[0] or "/"
        if path in folders:
            return True
    return False


def _matches(top: Path, inner: str) -> list[str]:
    if not glob.has_magic(inner):
        return [str(top / inner)]
    return [str(path) for path in top.glob(inner)]


def _homes() -> set[Path]:
    """Returns the homes of root and of people; services have theirs where their data is."""
    found = {Path("/root")}
    with _USERS.open(encoding="utf-8", errors="surrogateescape") as stream:
        for line in stream:
            fields = line.rstrip("\n").split(":")
            if len(fields) > 5 and fields[2].isdigit() and fields[5].startswith("/"):
                number = int(fields[2])
                if number == 0 or (number >= _FIRST_USER and number != _NOBODY):
                    found.add(Path(fields[5]))
    home = Path("/home")
    if home.is_dir():
        found |= set(home.iterdir())
    return {path for path in found if path != Path("/") and path.is_dir()}
