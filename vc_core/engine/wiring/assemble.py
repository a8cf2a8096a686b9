"""From chosen names to a wired board whose parts fit together."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from pathlib import Path

from vc_core.config import Config
from vc_core.defaults import Deadlines
from vc_core.engine.state.event_journal import Journal
from vc_core.engine.state.records import HeldDevice, PluginChoice
from vc_core.engine.wiring.catalog import Catalog
from vc_core.engine.wiring.options import check, instantiate
from vc_core.engine.wiring.wiring import Seat, Wiring
from vc_core.spec.errors import (
    ConfigError,
    DeviceError,
    HypervisorError,
    PluginContractError,
    PluginError,
    VcError,
)
from vc_core.spec.hooks import Hooks
from vc_core.spec.values import Capability, Channel, ChannelKind, Plugged, PodRef

_CHANNELS = {Capability.UNIX_CHANNEL: ChannelKind.UNIX, Capability.VSOCK_CHANNEL: ChannelKind.VSOCK}


def choices(config: Config, catalog: Catalog) -> tuple[PluginChoice, ...]:
    """What the configuration chooses, with versions: what a new pod remembers.

    Raises:
        PluginNotFound, PluginLoadError: a chosen plugin is not there.
    """
    found = [
        (catalog.find(family, name), config.tables.get((family, name), {}))
        for family, name in config.plugins()
    ]
    return tuple(
        PluginChoice(plugin.family, plugin.name, dict(table), plugin.distribution, plugin.version)
        for plugin, table in found
    )


def wire(
    catalog: Catalog,
    chosen: Iterable[PluginChoice],
    deadlines: Deadlines,
    journal: Journal | None = None,
) -> Wiring:
    """Makes a fresh object of each plugin and wires them, and whoever writes down what happens.

    Raises:
        PluginError, ConfigError, PluginContractError: with all problems of their kind.
    """
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
    if journal is not None:
        seats.append(Seat("observer", "journal", journal))
    return Wiring(seats, deadlines)


async def problems(config: Config, catalog: Catalog) -> list[str]:
    """Everything for which no pod could be made with a configuration, one line each. Starts nothing.

    The chosen plugins are made and wired, and hypervisor and agent asked for a channel that both know.
    """
    found = check(config, catalog)
    if found:
        return found
    try:
        wiring = wire(catalog, choices(config, catalog), config.deadlines)
        await check_combination(wiring, PodRef("check", Path("/nonexistent")))
    except (ConfigError, PluginContractError) as error:
        return list(error.problems)
    except VcError as error:
        return [str(error)]
    return []


async def give_back(wiring: Wiring, pod: PodRef, held: HeldDevice) -> None:
    """Gives a device back to the host, by the plugin that readied it. May be called twice.

    Raises:
        DeviceError: that plugin is no longer chosen.
    """
    hooks = dict(wiring.devices).get(held.owner)
    if hooks is None:
        raise DeviceError(
            f"the device plugin {held.owner}, which readied {held.device.path}, is no longer there"
        )
    await hooks.device_release(pod=pod, device=held.device)


async def check_combination(wiring: Wiring, pod: PodRef) -> frozenset[Capability]:
    """Finds out what hypervisor and agent can do together.

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
                f"the hypervisor offers {offered}, the agent speaks through {spoken}: choose ones that fit"
            ]
        )
    return machine | agent


async def shares_of(hooks: Hooks, pod: PodRef, count: int) -> tuple[Plugged, ...]:
    """Where the guest finds the shares that its machine was made with.

    Raises:
        PluginContractError: the hypervisor tells of more or fewer than there are.
    """
    places = await hooks.vm_shares(pod=pod)
    if len(places) != count:
        wrong = f"the hypervisor plugin breaks the contract: vm_shares returned {len(places)} places for {count} shares"
        raise PluginContractError([f"{wrong}; one that has no shares refuses them in vm_create"])
    return places


async def connect(hooks: Hooks, pod: PodRef, channel: Channel) -> None:
    """Connects to the agent; does not wait for an answer that never comes when the machine ends meanwhile.

    Raises:
        HypervisorError: it did.
    """
    answer = asyncio.ensure_future(hooks.agent_connect(pod=pod, channel=channel))
    end = asyncio.ensure_future(hooks.vm_wait(pod=pod))
    try:
        await asyncio.wait([answer, end], return_when=asyncio.FIRST_COMPLETED)
        if not answer.done():
            raise HypervisorError(
                f"the machine ended: {end.result().reason}", "vm_wait", "", pod.id
            )
        answer.result()
    finally:
        for task in (answer, end):
            task.cancel()
        await asyncio.gather(answer, end, return_exceptions=True)
