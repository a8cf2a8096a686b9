"""Finds the chosen plugins by name, wires them, and checks that they fit together."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from vc_core.config import Config
from vc_core.defaults import Deadlines
from vc_core.engine.state.event_journal import Journal
from vc_core.engine.state.records import PluginChoice
from vc_core.engine.wiring.catalog import Catalog
from vc_core.engine.wiring.options import check, instantiate
from vc_core.engine.wiring.wiring import Seat, Wiring
from vc_core.spec.errors import (
    ConfigError,
    PluginContractError,
    PluginError,
    VcError,
)
from vc_core.spec.values import Capability, ChannelKind, PodRef

_CHANNELS = {Capability.UNIX_CHANNEL: ChannelKind.UNIX, Capability.VSOCK_CHANNEL: ChannelKind.VSOCK}


Wire = Callable[[Iterable[PluginChoice]], Wiring]
"""Wires chosen plugins: `wire` with all other arguments bound."""


def choices(config: Config, catalog: Catalog) -> tuple[PluginChoice, ...]:
    """Returns the plugins that the configuration chooses, with versions, as stored with a new pod.

    Raises:
        PluginNotFound, PluginLoadError: a chosen plugin is missing or fails to load.
    """
    return tuple([choice_of(config, catalog, family, name) for family, name in config.plugins()])


def choice_of(config: Config, catalog: Catalog, family: str, name: str) -> PluginChoice:
    """One plugin, with its options of the configuration.

    Raises:
        PluginNotFound, PluginLoadError: it is not there.
    """
    plugin = catalog.find(family, name)
    table = config.tables.get((family, name), {})
    return PluginChoice(
        plugin.family, plugin.name, dict(table), plugin.distribution, plugin.version
    )


def wire(
    catalog: Catalog,
    chosen: Iterable[PluginChoice],
    deadlines: Deadlines,
    journal: Journal | None = None,
) -> Wiring:
    """Creates an object of each plugin and wires them, with the event journal if there is one.

    Raises:
        PluginError, ConfigError, PluginContractError: with all problems of their kind.
    """
    seats = _seats(catalog, chosen)
    if journal is not None:
        seats.append(Seat("observer", "journal", journal))
    return Wiring(seats, deadlines)


def _seats(catalog: Catalog, chosen: Iterable[PluginChoice]) -> list[Seat]:
    seats: list[Seat] = []
    wrong: list[str] = []
    missing: list[PluginError] = []
    for choice in chosen:
        try:
            plugin = instantiate(catalog.find(choice.family, choice.name), choice.options)
            seats.append(Seat(choice.family, choice.name, plugin))
        except ConfigError as error:
            wrong += error.problems
        except PluginError as error:
            missing.append(error)
    if missing:
        raise (
            missing[0]
            if len(missing) == 1
            else PluginContractError(str(error) for error in missing)
        )
    if wrong:
        raise ConfigError(wrong)
    return seats


def wire_storage(config: Config, catalog: Catalog, journal: Journal | None = None) -> Wiring:
    """Wires the chosen store with the observers, for calls that need nothing else.

    With the event journal if there is one.

    Raises:
        PluginError, ConfigError, PluginContractError: as `wire`.
    """
    wanted = ("storage", "observer")
    chosen = [
        choice_of(config, catalog, family, name)
        for family, name in config.plugins()
        if family in wanted
    ]
    seats = _seats(catalog, chosen)
    if journal is not None:
        seats.append(Seat("observer", "journal", journal))
    return Wiring(seats, config.deadlines, families=("storage",))


async def problems(config: Config, catalog: Catalog) -> list[str]:
    """Returns all problems that prevent pods of this configuration, one line each.

    Starts nothing. The chosen plugins are created and wired, and the hypervisor and the agent are
    checked for a common kind of channel.
    """
    found = check(config, catalog)
    if found:
        return found
    try:
        wiring = wire(catalog, choices(config, catalog), config.deadlines)
        await check_combination(wiring, PodRef(id="check", run_dir=Path("/nonexistent")))
    except (ConfigError, PluginContractError) as error:
        return list(error.problems)
    except VcError as error:
        return [str(error)]
    return []


async def check_combination(wiring: Wiring, pod: PodRef) -> frozenset[Capability]:
    """Returns the combined capabilities of hypervisor, agent and network.

    Raises:
        PluginContractError: they have no kind of channel in common.
    """
    machine = await wiring.hooks.vm_capabilities(pod=pod)
    agent = await wiring.hooks.agent_capabilities(pod=pod)
    if not any(kind in machine and kind in agent for kind in _CHANNELS):
        offered = ", ".join(kind.value for kind in _CHANNELS if kind in machine) or "no channel"
        spoken = ", ".join(kind.value for kind in _CHANNELS if kind in agent) or "none"
        raise PluginContractError(
            [
                (
                    f"the hypervisor offers {offered}, the agent speaks through {spoken}: "
                    "choose ones that fit"
                )
            ]
        )
    if not wiring.has_network:
        return machine | agent
    return machine | agent | await wiring.hooks.network_capabilities(pod=pod)
