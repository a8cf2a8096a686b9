"""The plugin `pasta`: networks for ordinary users and for root."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Awaitable
from typing import TypeVar

from vc_core.spec import (
    Capability,
    Finding,
    GuestNetwork,
    Interface,
    Network,
    NetworkDenial,
    NetworkRequest,
    NetworkSpec,
    Nic,
    PodRef,
    PortMapping,
    hookimpl,
)
from vc_network import denials, doctor, layout, name_filter, namespace, netns, pasta, ports
from vc_network.errors import NetworkFailure, translated
from vc_network.layout import V4, Family
from vc_network.namespace import Namespace, Plan, folder
from vc_network.ruleset import Link, ruleset

T = TypeVar("T")

_NIC = "nic0"


class PastaNetwork(NetworkSpec):
    """The plugin `pasta`. A network is found by the pod's run folder.

    An object remembers only what it has prepared and not yet connected.
    """

    def __init__(self) -> None:
        self._prepared: dict[str, tuple[Namespace, int]] = {}

    @hookimpl
    async def network_capabilities(self, pod: PodRef) -> frozenset[Capability]:
        return frozenset({Capability.PORTS, Capability.NETWORK_POLICY, Capability.RATES})

    @hookimpl
    @translated
    async def network_prepare(self, pod: PodRef, request: NetworkRequest) -> tuple[Nic, ...]:
        await self._remove(pod)
        made, tap = await _namespace(pod)
        self._prepared[pod.id] = (made, tap)
        return (_nic(tap),)

    @hookimpl
    @translated
    async def network_connect(self, pod: PodRef, request: NetworkRequest) -> Network:
        prepared = self._prepared.pop(pod.id, None)
        if prepared is None:
            await self._remove(pod)
        made, tap = prepared or await _namespace(pod)
        try:
            return await _connect(pod, request, made, tap)
        except BaseException:
            if prepared is None:
                os.close(tap)
            made.channel.close()
            await self._remove(pod)
            raise

    @hookimpl
    async def network_is_connected(self, pod: PodRef) -> bool:
        processes = [namespace.keeper_of(pod.run_dir), pasta.process_of(pod.run_dir)]
        if (names := name_filter.process_of(pod.run_dir)) is not None:
            processes.append(names)
        return all(process is not None and process.is_alive() for process in processes)

    @hookimpl
    @translated
    async def network_denials(self, pod: PodRef) -> tuple[NetworkDenial, ...]:
        keeper = namespace.keeper_of(pod.run_dir)
        if keeper is None or not keeper.is_alive():
            return ()
        return await denials.read(pod.run_dir, namespace.entering(keeper))

    @hookimpl
    async def network_disconnect(self, pod: PodRef) -> None:
        await self._remove(pod)

    @hookimpl
    async def network_diagnose(self) -> tuple[Finding, ...]:
        return doctor.diagnose()

    async def _remove(self, pod: PodRef) -> None:
        if pod.id in self._prepared:
            self._prepared.pop(pod.id)[0].channel.close()
        parts = name_filter.process_of(pod.run_dir), namespace.keeper_of(pod.run_dir)
        await namespace.end_all(parts)
        await pasta.end(pod.run_dir)
        if folder(pod.run_dir).exists():
            shutil.rmtree(folder(pod.run_dir))


async def _namespace(pod: PodRef) -> tuple[Namespace, int]:
    """Returns a new namespace, and the descriptor of its tap, which is down."""
    namespace.check_device()
    made = await Namespace.make(pod.run_dir)
    try:
        return made, await made.open_tap()
    except BaseException:
        await made.end()
        raise


def _nic(tap: int) -> Nic:
    return Nic(id=_NIC, mac=layout.GUEST_MAC, mtu=layout.MTU, descriptor=tap)


async def _connect(pod: PodRef, request: NetworkRequest, made: Namespace, tap: int) -> Network:
    """Makes everything but the namespace and its tap, which is up only when the rules are there."""
    families, servers, policy = pasta.families(), _servers(request), request.policy
    with ports.reserved(request.ports) as published:
        own, _ = await _both(
            _enforce(made, request, published, families),
            pasta.start(pod.run_dir, made.keeper, published, families),
        )
        await made.connect(
            layout.ip_commands(families), layout.tc_commands(policy.bits_in, policy.bits_out)
        )
        name_servers: tuple[str, ...] = (V4.resolver,)
        if policy.has_names:
            name_servers = tuple(family.router for family in families)
            enter = namespace.entering(made.keeper)
            await name_filter.start(pod.run_dir, enter, request, name_servers, servers, own)
    await made.keep()
    guest = GuestNetwork(
        mac=layout.GUEST_MAC,
        mtu=layout.MTU,
        addresses=tuple(f"{family.guest}/{family.bits}" for family in families),
        gateways=tuple(family.router for family in families),
        name_servers=name_servers,
    )
    return Network(interfaces=(Interface(nic=_nic(tap), guest=guest),), ports=published)


async def _enforce(
    made: Namespace,
    request: NetworkRequest,
    published: tuple[PortMapping, ...],
    families: tuple[Family, ...],
) -> tuple[str, ...]:
    """Puts reach and policy in force; returns the host's addresses."""
    own = await asyncio.to_thread(netns.own_addresses)
    link = Link(families, published, own, _servers(request))
    rules = ruleset(request.reach, request.policy, link)
    await made.enforce(Plan(layout.sysctls(families), rules))
    return own


async def _both(first: Awaitable[T], second: Awaitable[object]) -> tuple[T, object]:
    """Waits for both, also where one fails: the other one must not go on by itself."""
    tasks = asyncio.ensure_future(first), asyncio.ensure_future(second)
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _servers(request: NetworkRequest) -> tuple[str, ...]:
    """Returns the addresses of the DNS servers that the filter of names asks."""
    for server in request.name_servers:
        if "%" in server:
            raise NetworkFailure(
                f"the DNS server {server} has a zone: its interface is none of the pod's network"
            )
    return request.name_servers or (V4.resolver,)
