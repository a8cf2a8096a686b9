"""Converts a plugin's raw configuration table to the plugin's options."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from vc_core.config import Config, Table, convert, field_names
from vc_core.engine.wiring.catalog import Catalog, Plugin
from vc_core.engine.wiring.plugin_checks import constructor_problem, fulfilment
from vc_core.spec.errors import ConfigError, PluginError, PluginLoadError


def instantiate(plugin: Plugin, table: Table) -> object:
    """Creates the plugin object.

    Raises:
        ConfigError: unknown or wrong keys in its table, all of them.
        PluginLoadError: its constructor failed.
    """
    if wrong := constructor_problem(plugin.factory):
        message = f"the {plugin.family} plugin {plugin.name!r} cannot be created: {wrong}"
        raise PluginLoadError(plugin.family, plugin.name, message)
    problems: list[str] = []
    options = parse(plugin, table, problems)
    if problems:
        raise ConfigError(problems)
    try:
        return plugin.factory() if options is None else plugin.factory(options)
    except (Exception, SystemExit) as error:
        message = (
            f"the {plugin.family} plugin {plugin.name!r} cannot be created: "
            f"{type(error).__name__}: {error}"
        )
        raise PluginLoadError(plugin.family, plugin.name, message) from error


def parse(plugin: Plugin, table: Table, problems: list[str]) -> Any:
    """Returns the options object, None for a plugin without options.

    Wrong keys are appended to `problems`, one line each.
    """
    kind = getattr(plugin.factory, "options_type", None)
    path = f"{plugin.family}.{plugin.name}"
    if kind is None:
        problems += (f"{path}.{key}: unknown key; this plugin has no options" for key in table)
        return None
    options = convert(kind, table, path, problems)
    check = getattr(options, "problems", None)
    if check is not None:
        problems += (f"{path}.{problem}" for problem in check())
    return options


def effective(config: Config, catalog: Catalog) -> Iterator[tuple[str, Any]]:
    """Yields (key path, value) of every effective setting: the core's and each chosen plugin's."""
    for name in ("use", "pod", "deadlines"):
        part = getattr(config, name)
        for key in field_names(type(part)):
            yield f"{name}.{key}", getattr(part, key)
    for family, name in config.plugins():
        options = parse(catalog.find(family, name), config.tables.get((family, name), {}), [])
        for key in field_names(type(options)) if options is not None else ():
            yield f"{family}.{name}.{key}", getattr(options, key)


def check(config: Config, catalog: Catalog) -> list[str]:
    """Returns every problem of the chosen plugins and their tables, one line each.

    Creates no plugin object.
    """
    problems: list[str] = []
    for family, name in config.plugins():
        try:
            plugin = catalog.find(family, name)
        except PluginError as error:
            problems.append(f"{family}: {error}")
            continue
        wrong = fulfilment(family, plugin.factory)
        problems += (
            f"{family}: the plugin {name!r} does not fulfil the contract: {problem}"
            for problem in wrong
        )
        if not constructor_problem(plugin.factory):
            parse(plugin, config.tables.get((family, name), {}), problems)
    return problems
