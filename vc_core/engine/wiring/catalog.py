"""Finds the class of a plugin by its name. The only module that uses stevedore.

Only the named plugin is imported. What stevedore has found is remembered for later processes.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from typing import TYPE_CHECKING

from msgspec import Struct

from vc_core.config import PLUGIN_TABLES, nearest
from vc_core.engine.wiring import known_plugins
from vc_core.engine.wiring.known_plugins import KnownPlugin
from vc_core.engine.wiring.plugin_checks import fulfilment
from vc_core.first_party import install_hint
from vc_core.spec.errors import PluginError, PluginLoadError, PluginNotFound

if TYPE_CHECKING:
    import importlib.metadata

Factory = Callable[..., object]


class Plugin(Struct, frozen=True):
    """A plugin that was found.

    Attributes:
        family: from the entry-point group `vc_core.<family>`.
        name: its name in that group.
        factory: the class, or a callable that creates an object of it.
        distribution: name of its distribution; empty for one that was given in code.
        version: version of the distribution.
    """

    family: str
    name: str
    factory: Factory
    distribution: str = ""
    version: str = ""


class Installed(Struct, frozen=True):
    """One line of `vc plugins`: a plugin of an installed distribution.

    Attributes:
        family: from the entry-point group `vc_core.<family>`.
        name: its name in that group.
        distribution: name of its distribution.
        version: version of the distribution.
        state: "loads", or why it does not.
        contract: "fulfilled" as far as checked without running it, or what is wrong; empty for one
            that does not load.
    """

    family: str
    name: str
    distribution: str
    version: str
    state: str
    contract: str


class Catalog:
    """Finds plugins by name.

    Args:
        extra: plugins given in code, by (family, name); they take precedence over installed ones.
    """

    def __init__(self, extra: Mapping[tuple[str, str], Factory] | None = None) -> None:
        self._extra = dict(extra or {})
        self._found: dict[tuple[str, str], Plugin] = {}
        self._offered: (
            importlib.metadata.SelectableGroups | importlib.metadata.EntryPoints | None
        ) = None
        self._key: known_plugins.Key | None = None
        self._known: Mapping[tuple[str, str], KnownPlugin] | None = None

    def find(self, family: str, name: str) -> Plugin:
        """Imports one plugin.

        Raises:
            PluginNotFound: no distribution offers it, or several do; names what is installed and
                what to install.
            PluginLoadError: its module fails to import, or its entry point names no class.
        """
        key = (family, name)
        if key in self._extra:
            if not callable(self._extra[key]):
                raise PluginLoadError(family, name, _no_class(family, name, "", self._extra[key]))
            return Plugin(family, name, self._extra[key])
        if key not in self._found:
            self._found[key] = self._recalled(family, name) or self._load(family, name)
        return self._found[key]

    def names(self, family: str) -> tuple[str, ...]:
        """Returns the names of the plugins in a family, sorted; imports nothing."""
        installed = {point.name for point in self._points(family)}
        return tuple(sorted(installed | {name for kind, name in self._extra if kind == family}))

    def installed(self) -> Iterator[Installed]:
        """Yields every plugin of every family, each tested by importing it."""
        for family in PLUGIN_TABLES:
            for point in sorted(self._points(family), key=lambda point: point.name):
                contract = ""
                try:
                    plugin = self.find(family, point.name)
                    state = "loads"
                    requirements = (point.dist.requires if point.dist else None) or []
                    contract = (
                        "; ".join(fulfilment(family, plugin.factory, requirements)) or "fulfilled"
                    )
                except PluginError as error:
                    state = str(error)
                who, version = _distribution(point)
                yield Installed(family, point.name, who, version, state, contract)

    def _recalled(self, family: str, name: str) -> Plugin | None:
        """Loads a plugin that an earlier process has found; None when it must be looked for."""
        if self._known is None:
            self._known = known_plugins.recall()
            if self._known is None:
                self._known = self._remember()
        known = self._known.get((family, name))
        if known is None:
            return None
        try:
            factory = operator.attrgetter(known.attribute)(import_module(known.module))
        except KeyboardInterrupt:
            raise
        except BaseException:  # met again when stevedore loads it, and reported then
            return None
        if not isinstance(factory, type):
            return None
        return Plugin(family, name, factory, known.distribution, known.version)

    def _remember(self) -> dict[tuple[str, str], KnownPlugin]:
        """Remembers the plugins of all families that one distribution offers."""
        offers: dict[tuple[str, str], list[importlib.metadata.EntryPoint]] = {}
        for family in PLUGIN_TABLES:
            for point in self._points(family):
                offers.setdefault((family, point.name), []).append(point)
        known_plugins.remember(
            (
                _known(family, points[0])
                for (family, _), points in offers.items()
                if len(points) == 1 and points[0].attr
            ),
            self._key,
        )
        return {}

    def _load(self, family: str, name: str) -> Plugin:
        from stevedore import NamedExtensionManager

        points = [point for point in self._points(family) if point.name == name]
        if len(points) > 1:
            owners = " and ".join(sorted(_distribution(point)[0] for point in points))
            raise PluginNotFound(
                family,
                name,
                f"the {family} plugin {name!r} is offered by {owners}; uninstall one of them",
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
                # Stevedore's own list comes from a cache on disk that may be out of date.
                return points

        try:
            found = Named(
                f"vc_core.{family}",
                [name],
                on_load_failure_callback=lambda _manager, _point, error: failures.append(error),
            ).extensions
        except KeyboardInterrupt:
            raise
        except (
            BaseException
        ) as error:  # a module may call sys.exit, which must not end this program
            failures.append(error)
        if failures:
            message = (
                f"the {family} plugin {name!r} of {who} cannot be imported: {_reason(failures[0])}"
            )
            raise PluginLoadError(family, name, message) from failures[0]
        if not isinstance(found[0].plugin, type):
            raise PluginLoadError(
                family, name, _no_class(family, name, f" of {who}", found[0].plugin)
            )
        return Plugin(family, name, found[0].plugin, who, version)

    def _points(self, family: str) -> list[importlib.metadata.EntryPoint]:
        """Returns the entry points of a family. Reads all distributions once; imports nothing."""
        import importlib.metadata

        if self._offered is None:
            self._key = known_plugins.key()  # before they are read: one may be added meanwhile
            self._offered = importlib.metadata.entry_points()
        return list(self._offered.select(group=f"vc_core.{family}"))


def _reason(error: BaseException) -> str:
    if isinstance(error, Exception) and str(error):
        return str(error)
    return f"it raises {type(error).__name__}({', '.join(map(repr, error.args))})"


def _no_class(family: str, name: str, owner: str, what: object) -> str:
    kind = (
        "a function"
        if callable(what) and hasattr(what, "__code__")
        else f"a {type(what).__name__} object"
    )
    return (
        f"the {family} plugin {name!r}{owner} is {kind}, not a class; "
        "name the plugin's class in the entry point"
    )


def _known(family: str, point: importlib.metadata.EntryPoint) -> KnownPlugin:
    who, version = _distribution(point)
    return KnownPlugin(
        family=family,
        name=point.name,
        module=point.module,
        attribute=point.attr,
        distribution=who,
        version=version,
    )


def _distribution(point: importlib.metadata.EntryPoint) -> tuple[str, str]:
    if point.dist is None:
        return "", ""
    about = point.dist.metadata  # read and parsed at each access
    return about["Name"], about["Version"]
