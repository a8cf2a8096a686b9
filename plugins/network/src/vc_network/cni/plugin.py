"""The plugin `cni`: networks by any configuration list of CNI."""

from __future__ import annotations

import ipaddress
import logging
import os
import shutil
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from msgspec import structs

from vc_core.driver_kit import FileLock
from vc_core.spec import (
    Capability,
    Finding,
    Interface,
    NamedNetwork,
    Network,
    NetworkDenial,
    NetworkRequest,
    NetworkSpec,
    NewNetwork,
    Nic,
    PodRef,
    PortMapping,
    hookimpl,
)
from vc_network import attachment, namespace, netns, ports, redirect
from vc_network.cni import (
    capabilities,
    configuration,
    doctor,
    own_lists,
    own_networks,
    own_rules,
    results,
)
from vc_network.cni.cache import NETNS, Attachment, Cache, container_of
from vc_network.cni.chain import AddFailure, Chain, check_installed
from vc_network.cni.collection import collect
from vc_network.cni.configuration import NetworkList
from vc_network.cni.locks import locked
from vc_network.cni.names import Names, resolvers_of_host
from vc_network.cni.options import CniOptions
from vc_network.errors import NetworkFailure, translated
from vc_network.namespace import folder

log = logging.getLogger(__name__)

_COLLECT_S = 2.0  # a start waits for it

# portmap removes all rules of a pod, but only if it is told of a port.
_UNKNOWN = {"portMappings": [{"hostPort": 1, "containerPort": 1, "protocol": "tcp"}]}


class CniNetwork(NetworkSpec):
    """The plugin `cni`. NetworkRequest.name is the name of a network.

    A pod has a namespace below /run/netns, in which CNI's plugins configure an interface; the guest
    takes that over. What has to be undone is in CNI's cache, and a copy is in the run folder.
    """

    options_type = CniOptions

    def __init__(self, options: CniOptions) -> None:
        self._options = options
        self._cache = Cache(options.cache_dir)
        self._prepared: dict[str, int] = {}  # taps of pods that are not connected yet

    @hookimpl
    async def network_capabilities(self, pod: PodRef) -> frozenset[Capability]:
        return frozenset({Capability.PORTS, Capability.RATES, Capability.NETWORKS})

    @hookimpl
    @translated
    async def network_prepare(self, pod: PodRef, request: NetworkRequest) -> tuple[Nic, ...]:
        await self._make_namespace(pod)
        try:
            tap = await attachment.prepare(_netns(container_of(pod)))
        except BaseException:
            await self._remove(pod)
            raise
        self._prepared[pod.id] = tap.descriptor
        return (tap,)

    @hookimpl
    @translated
    async def network_connect(self, pod: PodRef, request: NetworkRequest) -> Network:
        prepared = self._prepared.pop(pod.id, None)
        if prepared is None:
            await self._make_namespace(pod)
        try:
            network = self._network(request.name)
            check_installed(network, self._options.plugin_dirs)
            capabilities.check(network, request)
            await self._collect(network)
            taps = () if prepared is None else (prepared,)
            async with await self._calling():
                return await self._connect(pod, request, network, taps)
        except BaseException:
            await self._remove(pod)
            raise

    @hookimpl
    async def network_is_connected(self, pod: PodRef) -> bool:
        container = container_of(pod)
        names = self._cache.networks_of(container)
        if len(names) != 1 or not await attachment.is_attached(pod.run_dir):
            return False
        found = self._cache.read(names[0], container)
        if found is None or found.result is None:
            return False
        known = Names(names[0])
        if known.is_known(container) and not known.is_running():
            return False
        try:
            network = configuration.parse(found.config)
            if not own_rules.are_set(network):
                return False
            if network.checks:
                await self._chain(network, found).check(found.result)
        except NetworkFailure as error:
            log.warning("pod %s: %s", pod.id, error)
            return False
        return True

    @hookimpl
    @translated
    async def network_disconnect(self, pod: PodRef) -> None:
        await self._remove(pod)

    @hookimpl
    async def network_denials(self, pod: PodRef) -> tuple[NetworkDenial, ...]:
        return ()  # nothing is enforced

    @hookimpl
    @translated
    async def network_list(self) -> tuple[NamedNetwork, ...]:
        return own_networks.networks_of(self._options, self._cache)

    @hookimpl
    @translated
    async def network_create(self, wanted: NewNetwork) -> NamedNetwork:
        _check_root()
        async with await self._locked():
            return own_networks.create(self._options, self._cache, wanted)

    @hookimpl
    @translated
    async def network_remove(self, name: str) -> None:
        _check_root()
        await collect(self._cache, self._network(name), self._chain)
        async with await self._locked():
            own_networks.remove(self._options, self._cache, name)

    @hookimpl
    async def network_diagnose(self) -> tuple[Finding, ...]:
        return doctor.diagnose(self._options)

    async def _collect(self, network: NetworkList) -> None:
        """Removes what pods that are gone have left, unless others add or remove pods now."""
        try:
            await collect(self._cache, network, self._chain, _COLLECT_S)
        except NetworkFailure as error:
            log.debug("not collected now: %s", error)

    async def _locked(self) -> FileLock:
        return await locked(self._cache.lock)

    async def _calling(self) -> FileLock:
        return await locked(self._cache.calls, exclusive=False)

    def _network(self, name: str) -> NetworkList:
        return configuration.find(self._options.config_dir, name or self._options.network)

    async def _make_namespace(self, pod: PodRef) -> None:
        _check_root()
        namespace.check_device()
        await self._remove(pod)
        # It is found by its name, which is the pod's.
        netns.run("ip", "netns", "add", _netns(container_of(pod)).name)

    async def _connect(
        self, pod: PodRef, request: NetworkRequest, network: NetworkList, taps: tuple[int, ...]
    ) -> Network:
        container = container_of(pod)
        path = _netns(container)
        await self._chain(
            network, Attachment(container, network.name, "", {}, None, "")
        ).check_ready()
        async with await self._locked():
            if network.path is not None and not network.path.exists():
                raise NetworkFailure(f"the network {network.name} was removed meanwhile")
            ports.check_no_v6_loopback(request.ports)
            # Nothing listens on a port that portmap redirects: the cache is the list of them.
            taken = self._taken_ports()
            with ports.reserved(request.ports, avoid=taken.keys()) as published:
                for port in published:
                    _check_free(port, taken)
                given = capabilities.arguments(request, published)
                called = own_lists.without_host_rules(network, given)
                begun = Attachment(container, network.name, called.text, given, None, str(path))
                # First: a later call must find what a call that is killed in between leaves.
                self._write(pod, begun)
        try:
            await netns.aside(lambda: own_rules.apply(network))
            result = await self._chain(called, begun).add()
        except AddFailure as error:
            if error.is_clean:
                self._forget(pod, network.name)
            raise
        self._write(pod, replace(begun, result=result))
        interfaces = await attachment.attach(pod.run_dir, path, taps)
        servers = await self._name_servers(pod, network, result)
        return Network(
            interfaces=tuple(_with_servers(one, servers) for one in interfaces), ports=published
        )

    def _write(self, pod: PodRef, found: Attachment) -> None:
        self._cache.write(found)
        Cache(folder(pod.run_dir)).write(found)

    def _forget(self, pod: PodRef, network: str) -> None:
        container = container_of(pod)
        Cache(folder(pod.run_dir)).remove(network, container)
        self._cache.remove(network, container)

    async def _name_servers(
        self, pod: PodRef, network: NetworkList, result: dict[str, Any]
    ) -> tuple[str, ...]:
        found = results.known(result)
        ips = found.ips or ()
        if found.dns is not None and (given := found.dns.nameservers):
            try:
                return tuple(str(ipaddress.ip_address(one)) for one in given)
            except ValueError as error:
                raise NetworkFailure(
                    f"the network {network.name} has a name server that is no address: {error}"
                ) from error
        gateways = [one.gateway for one in ips if one.gateway]
        if not self._options.names or not gateways:
            return resolvers_of_host()
        # The gateway of a network of ours is its bridge.
        if not own_lists.is_own(network) and not set(gateways).issubset(netns.own_addresses()):
            return resolvers_of_host()
        addresses = [one.address.partition("/")[0] for one in ips]
        await Names(network.name).add(container_of(pod), pod.id, addresses, gateways)
        return tuple(gateways)

    def _taken_ports(self) -> dict[tuple[str, int], list[tuple[str, str]]]:
        """Returns address and container of all redirected ports, by protocol and number."""
        taken: dict[tuple[str, int], list[tuple[str, str]]] = {}
        for found in self._cache.all():
            for key, address in found.ports():
                taken.setdefault(key, []).append((address, found.container))
        return taken

    def _chain(self, network: NetworkList, found: Attachment) -> Chain:
        path = _netns(found.container)
        return Chain(
            network,
            found.container,
            str(path) if path.exists() else "",
            found.capabilities,
            self._options.plugin_dirs,
            self._options.timeout_s,
        )

    async def _remove(self, pod: PodRef) -> None:
        """Removes the pod's network. On failure it can be called again."""
        self._prepared.pop(pod.id, None)
        container, own = container_of(pod), Cache(folder(pod.run_dir))
        await attachment.detach(pod.run_dir)
        if names := {*self._cache.networks_of(container), *own.networks_of(container)}:
            async with await self._calling():
                await self._delete(pod, names)
        self._cache.remove_unfinished(container)
        if (path := _netns(container)).exists():
            netns.run("ip", "netns", "delete", path.name)
        if folder(pod.run_dir).exists():
            shutil.rmtree(folder(pod.run_dir))

    async def _delete(self, pod: PodRef, names: Iterable[str]) -> None:
        container, own = container_of(pod), Cache(folder(pod.run_dir))
        for name in names:
            found = self._cache.read(name, container) or own.read(name, container)
            try:
                if found is None:  # both are damaged
                    network = configuration.find(self._options.config_dir, name)
                    path = _netns(container)
                    result = await _found_result(network.version, path)
                    found = Attachment(container, name, network.text, _UNKNOWN, result, str(path))
                chain = self._chain(configuration.parse(found.config), found)
                await chain.delete(found.result)
            except NetworkFailure as error:
                path = self._cache.path(name, container)
                raise NetworkFailure(
                    f"{error}; the network of pod {pod.id} is not removed. "
                    f"To give up its addresses and ports, remove {path}"
                ) from error
            await Names(name).remove(container)
            self._forget(pod, name)


def _check_root() -> None:
    if os.geteuid() != 0:
        raise NetworkFailure(
            "networks of CNI are for root only; the plugin pasta needs no privilege: "
            "--network public"
        )


def _netns(container: str) -> Path:
    return Path(f"{NETNS}{container}")


async def _found_result(version: str, path: Path) -> dict[str, Any] | None:
    """Returns the result of an ADD as far as a namespace tells; None when that is gone."""
    if not path.exists():
        return None
    with netns.opened(path) as descriptor:
        links = await netns.within(descriptor, redirect.look)
    interfaces, ips = [], []
    for number, link in enumerate(links):
        interfaces.append({"name": link.name, "mac": link.guest.mac, "sandbox": str(path)})
        for address in link.guest.addresses:
            of_0_4 = {"version": "6" if ":" in address else "4"} if version == "0.4.0" else {}
            ips.append({"address": address, "interface": number, **of_0_4})
    return {"cniVersion": version, "interfaces": interfaces, "ips": ips}


def _check_free(port: PortMapping, taken: dict[tuple[str, int], list[tuple[str, str]]]) -> None:
    every = {"", "0.0.0.0", "::"}  # noqa: S104 (compared only)
    for address, container in taken.get((port.protocol.value, port.host_port), []):
        if address == port.host_ip or every & {address, port.host_ip}:
            raise NetworkFailure(
                f"port {port.host_port}/{port.protocol} of {port.host_ip} is taken by the "
                f"container {container} of CNI; choose another port, or 0 for any free one"
            )


def _with_servers(interface: Interface, servers: tuple[str, ...]) -> Interface:
    return structs.replace(interface, guest=structs.replace(interface.guest, name_servers=servers))
