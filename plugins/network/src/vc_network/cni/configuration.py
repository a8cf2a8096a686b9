"""Network configurations of CNI: files in a directory, or one file.

Format: containernetworking/cni, SPEC.md, "Section 1: Network configuration format", versions 0.4.0
to 1.1.0.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vc_core.driver_kit.ownership import untrusted
from vc_network.errors import NetworkFailure

VERSIONS = ("0.4.0", "1.0.0", "1.1.0")
_BEFORE_STATUS_AND_GC = ("0.4.0", "1.0.0")
_SUFFIXES = (".conf", ".conflist", ".json")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_TYPE = re.compile(r"[A-Za-z0-9_.-]+")
_MOST_BYTES = 1 << 20


@dataclass(frozen=True)
class NetworkList:
    """A network configuration list.

    Attributes:
        name: name of the network.
        version: version of CNI that the plugins are called with.
        plugins: configurations of the plugins, in the order of ADD.
        checks: whether CHECK may be called.
        collects: whether GC may be called.
        text: the file, as it was read.
        path: the file; None for a list that was read from the cache.
        extra: keys of the list that CNI does not know.
    """

    name: str
    version: str
    plugins: tuple[Mapping[str, Any], ...]
    checks: bool
    collects: bool
    text: str
    path: Path | None
    extra: Mapping[str, Any]

    @property
    def has_status_and_gc(self) -> bool:
        """Whether CNI has STATUS and GC in its version."""
        return self.version not in _BEFORE_STATUS_AND_GC

    def has(self, capability: str) -> bool:
        """Returns whether a plugin of the list has a capability."""
        return any(one.get("capabilities", {}).get(capability) is True for one in self.plugins)


def load_all(folder: Path) -> tuple[dict[str, NetworkList], dict[Path, str]]:
    """Returns the networks of a folder by name, and the problem of each file that is none.

    Of two files with the same name of a network the first counts, in the order of file names.
    """
    networks: dict[str, NetworkList] = {}
    problems: dict[Path, str] = {}
    files = sorted(folder.iterdir()) if folder.is_dir() else []
    for path in files:
        if path.suffix not in _SUFFIXES:
            continue
        try:
            found = load(path)
        except NetworkFailure as error:
            problems[path] = str(error)
            continue
        if found.name in networks:
            other = networks[found.name].path
            problems[path] = f"{path} is not used: the network {found.name} is in {other}, too"
        networks.setdefault(found.name, found)
    return networks, problems


def find(folder: Path, name: str) -> NetworkList:
    """Returns a network by its name; the first of the folder for an empty one.

    Raises:
        NetworkFailure: there is none, or it is not valid.
    """
    networks, problems = load_all(folder)
    if not name and networks:
        return next(iter(networks.values()))
    if name in networks:
        return networks[name]
    known = f"there are: {', '.join(sorted(networks))}" if networks else "there is none"
    also = "".join(f"; {problem}" for problem in problems.values())
    asked = f"no network {name}" if name else "no network"
    raise NetworkFailure(f"{asked} in {folder}; {known}; 'vc network create NAME' makes one{also}")


def load(path: Path) -> NetworkList:
    """Reads a file with a list (.conflist) or a single plugin (.conf, .json).

    Raises:
        NetworkFailure: it is not valid, or other users can write to it.
    """
    if reason := untrusted(path, frozenset({0})):
        raise NetworkFailure(f"{path} is not used: {reason}")
    try:
        with path.open("rb") as file:
            content = file.read(_MOST_BYTES + 1)
        text = content.decode()
    except (OSError, UnicodeDecodeError) as error:
        raise NetworkFailure(f"{path} cannot be read: {error}") from error
    if len(content) > _MOST_BYTES:
        raise NetworkFailure(f"{path} has more than {_MOST_BYTES} bytes")
    return parse(text, path)


def parse(text: str, path: Path | None = None) -> NetworkList:
    """Returns the network of a configuration.

    Raises:
        NetworkFailure: it is not valid; names the key.
    """
    source = str(path) if path is not None else "the cached configuration"
    try:
        found = json.loads(text)
    except ValueError as error:
        raise NetworkFailure(f"{source} is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise NetworkFailure(f"{source} is no network configuration: it must be an object")
    plugins = found.get("plugins", [found] if "type" in found else [])
    if not isinstance(plugins, list) or not plugins:
        raise NetworkFailure(f"{source}: plugins must be a list with a plugin")
    for one in plugins:
        kind = one.get("type") if isinstance(one, dict) else None
        if not isinstance(kind, str) or not _TYPE.fullmatch(kind) or kind in (".", ".."):
            raise NetworkFailure(f"{source}: type {kind!r} is not the name of a plugin")
        if not isinstance(one.get("capabilities", {}), dict):
            raise NetworkFailure(f"{source}: capabilities of {kind} must be an object")
    name = found.get("name")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise NetworkFailure(f"{source}: name {name!r} is not the name of a network")
    known = {"name", "cniVersion", "cniVersions", "plugins", "disableCheck", "disableGC"}
    return NetworkList(
        name,
        _version(found, source),
        tuple(plugins),
        not found.get("disableCheck", False),
        not found.get("disableGC", False),
        text,
        path,
        {} if "type" in found else {key: found[key] for key in found.keys() - known},
    )


def _version(found: Mapping[str, Any], source: str) -> str:
    stated = found.get("cniVersion", "0.1.0")
    others = found.get("cniVersions", [])
    offered = [stated, *(others if isinstance(others, list) else [])]
    usable = [version for version in VERSIONS if version in offered]
    if not usable:
        raise NetworkFailure(
            f"{source}: cniVersion {stated} is not supported; use {', '.join(VERSIONS)}"
        )
    return usable[-1]
