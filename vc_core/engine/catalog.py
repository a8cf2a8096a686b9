"""Which class is a plugin's name? The only module that asks stevedore.

Only the named plugin is imported.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from vc_core.config import PLUGIN_TABLES, nearest
from vc_core.first_party import install_hint
from vc_core.spec.errors import PluginError, PluginLoadError, PluginNotFound

Factory = Callable[..., object]


@dataclass(frozen=True)
class Plugin:
    """A plugin that has been found.

    Attributes:
        family: of the entry-point group `vc_core.<family>`.
        name: in that group.
        factory: the class, or what makes an object of it.
        distribution: who ships it; empty for one that was given in code.
        version: of the distribution.
    """

    family: str
    name: str
    factory: Factory
    distribution: str = ""
    version: str = ""


@dataclass(frozen=True)
class Installed:
    """One line of `vc plugins`: a plugin that an installed distribution offers."""

    family: str
    name: str
    distribution: str
    version: str
    state: str


class Catalog:
    """Finds plugins by name.

    Args:
        extra: plugins given in code, by (family, name); they win over installed ones.
    """

    def __init__(self, extra: Mapping[tuple[str, str], Factory] | None = None) -> None:
        self._extra = dict(extra or {})
        self._found: dict[tuple[str, str], Plugin] = {}
        self._offered: importlib.metadata.SelectableGroups | importlib.metadata.EntryPoints | None = None

    def find(self, family: str, name: str) -> Plugin:
        """Imports one plugin.

        Raises:
            PluginNotFound: nobody offers it, or several do; says what is installed and what to install.
            PluginLoadError: its module cannot be imported.
        """
        key = (family, name)
        if key in self._extra:
            return Plugin(family, name, self._extra[key])
        if key not in self._found:
            self._found[key] = self._load(family, name)
        return self._found[key]

    def names(self, family: str) -> tuple[str, ...]:
        """What is offered in a family, sorted; imports nothing."""
        installed = {point.name for point in self._points(family)}
        return tuple(sorted(installed | {name for kind, name in self._extra if kind == family}))

    def installed(self) -> Iterator[Installed]:
        """Every plugin of every family, each tried by importing it."""
        for family in PLUGIN_TABLES:
            for point in sorted(self._points(family), key=lambda point: point.name):
                try:
                    self.find(family, point.name)
                    state = "loads"
                except PluginError as error:
                    state = str(error)
                who, version = _distribution(point)
                yield Installed(family, point.name, who, version, state)

    def _load(self, family: str, name: str) -> Plugin:
        from stevedore import NamedExtensionManager

        points = [point for point in self._points(family) if point.name == name]
        if len(points) > 1:
            owners = " and ".join(sorted(_distribution(point)[0] for point in points))
            raise PluginNotFound(
                family, name, f"the {family} plugin {name!r} is offered by {owners}; uninstall one of them"
            )
        if not points:
            known = self.names(family)
            installed = f"installed: {', '.join(known)}" if known else "none is installed"
            hint = install_hint(family, name) or nearest(name, known).partition("; known")[0]
            raise PluginNotFound(family, name, f"no {family} plugin {name!r}; {installed}{hint}")
        who, version = _distribution(points[0])
        failures: list[BaseException] = []

        class Named(NamedExtensionManager[type]):
            def list_entry_points(self) -> list[importlib.metadata.EntryPoint]:
                return points  # stevedore's own list comes from a cache on disk that may be out of date

        manager = Named(
            f"vc_core.{family}", [name], on_load_failure_callback=lambda _manager, _point, error: failures.append(error)
        )
        if failures:
            message = f"the {family} plugin {name!r} of {who} cannot be imported: {failures[0]}"
            raise PluginLoadError(family, name, message) from failures[0]
        return Plugin(family, name, manager.extensions[0].plugin, who, version)

    def _points(self, family: str) -> list[importlib.metadata.EntryPoint]:
        """Offered in a family. All distributions are looked through once; nothing is imported."""
        if self._offered is None:
            self._offered = importlib.metadata.entry_points()
        return list(self._offered.select(group=f"vc_core.{family}"))


def _distribution(point: importlib.metadata.EntryPoint) -> tuple[str, str]:
    if point.dist is None:
        return "", ""
    about = point.dist.metadata  # read and parsed each time that it is asked for
    return about["Name"], about["Version"]
