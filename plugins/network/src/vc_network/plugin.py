"""The plugin `pasta`: networks for ordinary users and for root."""

from __future__ import annotations

import asyncio
import os
import shutil

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
    hookimpl,
)
from vc_network import denials, doctor, layout, name_filter, namespace, netns, pasta, ports
from vc_network.errors import NetworkFailure, translated
from vc_network.layout import V4
from vc_network.namespace import Plan, folder
from vc_network.ruleset import Link, ruleset

_NIC = "nic0"


class PastaNetwork(NetworkSpec):
    """The plugin `pasta`. Keeps no state: a network is found by the pod's run folder."""

    @hookimpl
    async def network_capabilities(self, pod: PodRef) -> frozenset[Capability]:
        return frozenset({Capability.PORTS, Capability.NETWORK_POLICY, Capability.RATES})

    @hookimpl
    @translated
    async def network_connect(self, pod: PodRef, request: NetworkRequest) -> Network:
        await self._remove(pod)
        try:
            return await self._connect(pod, request)
        except BaseException:
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

    async def _connect(self, pod: PodRef, request: NetworkRequest) -> Network:
        namespace.check_device()
        families = pasta.families()
        with ports.reserved(request.ports) as published:
            async with namespace.made(pod.run_dir) as made:
                await pasta.start(pod.run_dir, made.keeper, published, families)
                policy, own = request.policy, await asyncio.to_thread(netns.own_addresses)
                servers = _servers(request)
                plan = Plan(
                    layout.sysctls(families),
                    ruleset(request.reach, policy, Link(families, published, own, servers)),
                    layout.ip_commands(families),
                    layout.tc_commands(policy.bits_in, policy.bits_out),
                )
                tap = await made.connect(plan)
                name_servers: tuple[str, ...] = (V4.resolver,)
                if policy.has_names:
                    name_servers = tuple(family.router for family in families)
                    try:
                        await name_filter.start(
                            pod.run_dir,
                            namespace.entering(made.keeper),
                            request,
                            name_servers,
                            servers,
                            own,
                        )
                    except BaseException:
                        os.close(tap)
                        raise
        guest = GuestNetwork(
            mac=layout.GUEST_MAC,
            mtu=layout.MTU,
            addresses=tuple(f"{family.guest}/{family.bits}" for family in families),
            gateways=tuple(family.router for family in families),
            name_servers=name_servers,
        )
        nic = Nic(id=_NIC, mac=layout.GUEST_MAC, mtu=layout.MTU, descriptor=tap)
        return Network(interfaces=(Interface(nic=nic, guest=guest),), ports=published)

    async def _remove(self, pod: PodRef) -> None:
        found = (part.process_of(pod.run_dir) for part in (name_filter, pasta))
        await namespace.end_all([*found, namespace.keeper_of(pod.run_dir)])
        if folder(pod.run_dir).exists():
            shutil.rmtree(folder(pod.run_dir))


def _servers(request: NetworkRequest) -> tuple[str, ...]:
    """Returns the addresses of the DNS servers that the filter of names asks."""
    for server in request.name_servers:
        if "%" in server:
            raise NetworkFailure(
                f"the DNS server {server} has a zone: its interface is none of the pod's network"
            )
    return request.name_servers or (V4.resolver,)
