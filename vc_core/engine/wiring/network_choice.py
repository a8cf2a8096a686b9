"""Determines the network of a new pod, and the plugin for it."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from msgspec import structs

from vc_core.config import Config
from vc_core.driver_kit.named_namespace import process_namespace
from vc_core.engine.state.records import PluginChoice, PodConfig
from vc_core.engine.wiring import assemble, network_limits
from vc_core.engine.wiring.assemble import Wire
from vc_core.engine.wiring.catalog import Catalog
from vc_core.first_party import CNI, DEFAULT_NETWORK, GIVEN, NAMESPACE_PREFIX, NO_NETWORK
from vc_core.spec.errors import InvalidRequest
from vc_core.spec.values import (
    Capability,
    Dns,
    Finding,
    NetworkPolicy,
    NetworkRequest,
    PodRef,
    PortMapping,
    Reach,
)

_PORTS = range(1, 65536)
_NAME = r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}"  # of a network, as in CNI's specification
_PROCESSES = "/proc/"
NO_LIMITS = NetworkPolicy()
NO_DNS = Dns()


def request(
    config: Config,
    choice: str,
    ports: Sequence[PortMapping],
    limits: NetworkPolicy = NO_LIMITS,
    dns: Dns = NO_DNS,
) -> NetworkRequest | None:
    """Returns a new pod's request for a network; None for a pod without one.

    Args:
        config: the configuration; if it chooses a network plugin, an empty `choice` means "public".
        choice: "none", "public", "full", the name of a CNI network, or "ns:" and the path of a
            network namespace.
        ports: ports of the host that are forwarded to the pod.
        limits: of the pod; what is empty there is as configured.
        dns: of the pod.

    Raises:
        InvalidRequest: there is no such choice, the process of a namespace has ended, a port or
            rule is invalid, or ports or limits are given without a network.
    """
    wanted = choice or _configured(config)
    if wanted == NO_NETWORK:
        if limits != NO_LIMITS:
            raise InvalidRequest(
                "a pod without a network has nothing to allow, deny or limit; add a network: "
                "public or full"
            )
        if ports:
            raise InvalidRequest(
                "a pod without a network publishes no ports; add a network: public or full"
            )
        return None
    _check_ports(ports)
    policy = network_limits.completed(limits, config.pod.network_policy())
    made = NetworkRequest(
        reach=Reach.FULL,
        ports=tuple(ports),
        policy=policy,
        name_servers=dns.servers if policy.has_names else (),
        dns=dns,
    )
    if wanted in [*Reach]:
        network_limits.check(Reach(wanted), policy)
        return structs.replace(made, reach=Reach(wanted))
    path = wanted.removeprefix(NAMESPACE_PREFIX)
    if path != wanted:
        if not path.startswith("/"):
            raise InvalidRequest(f"{wanted!r} names no namespace; give {NAMESPACE_PREFIX}/PATH")
    elif not re.fullmatch(_NAME, wanted):
        known = ", ".join([NO_NETWORK, *Reach])
        raise InvalidRequest(
            f"{wanted!r} is no network; choose one of {known}, the name of a CNI network, "
            f"or {NAMESPACE_PREFIX}/PATH for a network namespace"
        )
    network_limits.check(Reach.FULL, policy)
    return structs.replace(made, name=path, namespace=_namespace_now(path))


def _namespace_now(path: str) -> str:
    """Returns NetworkRequest.namespace for the name of a network or the path of a namespace.

    Raises:
        InvalidRequest: the process that the path goes through has ended.
    """
    if not path.startswith(_PROCESSES):
        return ""
    try:
        return process_namespace(path, Path(path).stat())
    except OSError as error:
        raise InvalidRequest(
            f"{path} is no network namespace: {error.strerror}; its process may have ended"
        ) from error


def of_copy(
    config: Config,
    catalog: Catalog,
    former: PodConfig,
    choice: str,
    ports: Sequence[PortMapping] | None,
) -> PodConfig:
    """Returns the configuration of a pod that starts from a saved one, with a network of its own.

    Args:
        config: the configuration.
        catalog: the installed plugins.
        former: that of the saved pod.
        choice: as for `request`; empty for a network like that of the saved pod.
        ports: ports of the host; None for those of the saved pod, each on a free port.

    Raises:
        InvalidRequest: there is no such choice, a port is invalid, or the saved machine does not
            fit the network.
        PluginNotFound, PluginLoadError: the network plugin is missing or fails to load.
    """
    network = former.network
    if ports is None:
        ports = [structs.replace(port, host_port=0) for port in network.ports] if network else []
    if network is None:
        if ports or choice not in ("", NO_NETWORK):
            raise InvalidRequest(
                f"the saved machine of pod {former.id} has no network interface: it gets no "
                "network and publishes no ports"
            )
        return former
    if choice == NO_NETWORK or (not choice and network.name.startswith("/")):
        has = f"uses the namespace {network.name}, which no other pod can use"
        raise InvalidRequest(
            f"pod {former.id} {'has a network interface' if choice else has}; give the new pod a "
            "network: --network public, full or the name of a CNI network"
        )
    if not choice:
        _check_ports(ports)
        return structs.replace(former, network=structs.replace(network, ports=tuple(ports)))
    wanted = request(config, choice, ports, network.policy, former.options.dns)
    return structs.replace(
        former, network=wanted, plugins=plugins(catalog, config, former.plugins, wanted)
    )


def of_running(config: Config, catalog: Catalog, former: PodConfig, choice: str) -> PodConfig:
    """Returns the configuration of a running pod that gets a network.

    Args:
        config: the configuration.
        catalog: the installed plugins.
        former: that of the pod so far.
        choice: as for `request`.

    Raises:
        InvalidRequest: there is no such choice, it is none, or the pod has another network.
        PluginNotFound, PluginLoadError: the network plugin is missing or fails to load.
    """
    wanted = request(config, choice, (), dns=former.options.dns)
    if wanted is None:
        raise InvalidRequest("none is no network that a pod can be connected to")
    if former.network == wanted:
        return former
    if former.network is not None:
        raise InvalidRequest(f"pod {former.id} has another network, which it keeps until it ends")
    return structs.replace(
        former, network=wanted, plugins=plugins(catalog, config, former.plugins, wanted)
    )


def plugins(
    catalog: Catalog, config: Config, chosen: Iterable[PluginChoice], wanted: NetworkRequest | None
) -> tuple[PluginChoice, ...]:
    """Returns the plugins of a new pod: a pod without a network has no network plugin.

    Raises:
        PluginNotFound, PluginLoadError: the network plugin is missing or fails to load.
    """
    others = tuple(choice for choice in chosen if choice.family != "network")
    if wanted is None:
        return others
    name = plugin_name(config)
    if wanted.name.startswith("/"):
        name = GIVEN
    elif wanted.name:
        name = plugin_of_names(config)
    return (*others, assemble.choice_of(config, catalog, "network", name))


def check(config: PodConfig, capabilities: frozenset[Capability]) -> None:
    """Refuses a network that the pod's plugins do not support.

    Raises:
        InvalidRequest: naming the plugin, and what it does not do.
    """
    wanted = config.network
    if wanted is None:
        return
    named = {
        choice.family: f"the {choice.family} plugin {choice.name}" for choice in config.plugins
    }
    needed = {
        Capability.NIC: f"{named['hypervisor']} plugs no network interface",
        Capability.NETWORK: f"{named['agent']} configures no network interface",
    }
    if wanted.reach is not Reach.FULL:
        needed[Capability.NETWORK_POLICY] = (
            f"{named['network']} does not enforce the network {wanted.reach}"
        )
    elif wanted.policy.allow or wanted.policy.deny:
        needed[Capability.NETWORK_POLICY] = (
            f"{named['network']} enforces no allowed and denied destinations"
        )
    if wanted.policy.bits_in or wanted.policy.bits_out:
        needed[Capability.RATES] = f"{named['network']} limits no rates"
    if wanted.ports:
        needed[Capability.PORTS] = f"{named['network']} publishes no ports"
    missing = [reason for capability, reason in needed.items() if capability not in capabilities]
    if missing:
        raise InvalidRequest(f"this pod cannot have the network: {'; '.join(missing)}")


async def check_new(wire: Wire, config: PodConfig) -> None:
    """Like `check`, for a pod that is not registered yet: its plugins are wired only to be asked.

    Raises:
        InvalidRequest: as `check`.
        PluginError, ConfigError, PluginContractError: one of the plugins is unusable.
    """
    if config.network is not None:
        pod = PodRef(id=config.id, run_dir=Path("/nonexistent"))
        check(config, await assemble.check_combination(wire(config.plugins), pod))


async def diagnose(config: Config, catalog: Catalog) -> tuple[Finding, ...]:
    """Returns the findings of the network plugin that a pod would get, if it is installed.

    Raises:
        PluginError, ConfigError, PluginContractError: the chosen plugin is unusable.
    """
    name = plugin_name(config)
    if config.use.network == NO_NETWORK and name not in catalog.names("network"):
        return ()
    chosen = [choice for choice in assemble.choices(config, catalog) if choice.family != "network"]
    chosen.append(assemble.choice_of(config, catalog, "network", name))
    wiring = assemble.wire(catalog, chosen, config.deadlines)
    return await wiring.hooks.network_diagnose()


def plugin_name(config: Config) -> str:
    """Returns the network plugin of a pod with a network."""
    return DEFAULT_NETWORK if config.use.network == NO_NETWORK else config.use.network


def plugin_of_names(config: Config) -> str:
    """Returns the network plugin of networks that are asked for by name: pasta has none."""
    name = plugin_name(config)
    return CNI if name == DEFAULT_NETWORK else name


def _configured(config: Config) -> str:
    """Returns the network of a pod that asks for none: CNI enforces no policy."""
    if config.use.network == NO_NETWORK:
        return NO_NETWORK
    return (Reach.FULL if config.use.network == CNI else Reach.PUBLIC).value


def _check_ports(ports: Sequence[PortMapping]) -> None:
    taken = set()
    for port in ports:
        try:
            ipaddress.ip_address(port.host_ip)
        except ValueError as error:
            raise InvalidRequest(f"{port.host_ip!r} is no IPv4 or IPv6 address") from error
        if "%" in port.host_ip:
            raise InvalidRequest(f"{port.host_ip!r} has a zone; give an address without one")
        if port.guest_port not in _PORTS or (port.host_port and port.host_port not in _PORTS):
            raise InvalidRequest(
                f"port {port.host_port}:{port.guest_port} is out of range; ports are 1 to 65535"
            )
        key = (port.host_ip, port.host_port, port.protocol)
        if port.host_port and key in taken:
            raise InvalidRequest(
                f"port {port.host_port}/{port.protocol} of {port.host_ip} is published twice"
            )
        taken.add(key)
