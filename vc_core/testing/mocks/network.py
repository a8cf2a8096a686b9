"""A network plugin with mock networks."""

from __future__ import annotations

import itertools
import os
import socket

from msgspec import structs

from vc_core.spec import (
    Capability,
    Finding,
    GuestNetwork,
    Interface,
    NamedNetwork,
    Network,
    NetworkDenial,
    NetworkError,
    NetworkRequest,
    NetworkSpec,
    NewNetwork,
    Nic,
    PodRef,
    PortMapping,
    Verdict,
    hookimpl,
)
from vc_core.testing.mocks.world import MockConnection, World

_MAC = "02:00:00:00:00:02"
_MTU = 1500
_FIRST_PORT = 40_000
_DEAD = "/dev/full"


class MockNetwork(NetworkSpec):
    """The mock network plugin: publishes ports of a table, with /dev/null as taps.

    A tap that passes nothing yet is /dev/full.
    """

    world: World

    def __init__(self) -> None:
        self._prepared: dict[str, int] = {}

    @hookimpl
    async def network_capabilities(self, pod: PodRef) -> frozenset[Capability]:
        return frozenset(
            {Capability.PORTS, Capability.NETWORK_POLICY, Capability.RATES, Capability.NETWORKS}
        )

    @hookimpl
    async def network_prepare(self, pod: PodRef, request: NetworkRequest) -> tuple[Nic, ...]:
        self.world.networks.pop(pod.id, None)
        self._prepared[pod.id] = os.open(_DEAD, os.O_RDWR | os.O_CLOEXEC)
        return (_nic(self._prepared[pod.id]),)

    @hookimpl
    async def network_connect(self, pod: PodRef, request: NetworkRequest) -> Network:
        prepared = self._prepared.pop(pod.id, None)
        self.world.networks.pop(pod.id, None)
        ports = self.published(request)
        self.world.networks[pod.id] = MockConnection(ports, network=request.name)
        tap = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        if prepared is not None:
            os.dup2(tap, prepared, inheritable=False)
            os.close(tap)
            tap = prepared
        guest = GuestNetwork(
            mac=_MAC,
            mtu=_MTU,
            addresses=("192.0.2.2/32",),
            gateways=("192.0.2.1",),
            name_servers=("192.0.2.53",),
        )
        return Network(interfaces=(Interface(nic=_nic(tap), guest=guest),), ports=ports)

    @hookimpl
    async def network_take_loopback(self, pod: PodRef) -> int:
        return socket.create_server(("127.0.0.1", 0)).detach()

    @hookimpl
    async def network_is_connected(self, pod: PodRef) -> bool:
        connection = self.world.networks.get(pod.id)
        return connection is not None and connection.is_alive

    @hookimpl
    async def network_denials(self, pod: PodRef) -> tuple[NetworkDenial, ...]:
        connection = self.world.networks.get(pod.id)
        return () if connection is None else connection.denials

    @hookimpl
    async def network_disconnect(self, pod: PodRef) -> None:
        self._prepared.pop(pod.id, None)
        self.world.networks.pop(pod.id, None)

    @hookimpl
    async def network_list(self) -> tuple[NamedNetwork, ...]:
        named = self.world.named_networks
        return tuple(
            structs.replace(named[name], pods=self.pods_in(name)) for name in sorted(named)
        )

    @hookimpl
    async def network_create(self, wanted: NewNetwork) -> NamedNetwork:
        if wanted.name in self.world.named_networks:
            raise NetworkError(f"there is a network {wanted.name}")
        self.world.named_networks[wanted.name] = NamedNetwork(
            name=wanted.name,
            subnets=wanted.subnets or ("192.0.2.0/24",),
            is_internal=wanted.is_internal,
            is_own=True,
            pods=(),
            definition="{}",
        )
        return self.world.named_networks[wanted.name]

    @hookimpl
    async def network_remove(self, name: str) -> None:
        if name not in self.world.named_networks:
            raise NetworkError(f"there is no network {name}")
        if users := self.pods_in(name):
            raise NetworkError(f"{', '.join(users)} use the network {name}")
        del self.world.named_networks[name]

    def pods_in(self, name: str) -> tuple[str, ...]:
        """Returns the pods in a network."""
        return tuple(sorted(pod for pod, one in self.world.networks.items() if one.network == name))

    @hookimpl
    async def network_diagnose(self) -> tuple[Finding, ...]:
        return (Finding(subject="network", verdict=Verdict.GOOD, detail="a table"),)

    def published(self, request: NetworkRequest) -> tuple[PortMapping, ...]:
        """Returns the ports of a request, each with its port on the host."""
        taken = {
            port.host_port
            for connection in self.world.networks.values()
            for port in connection.ports
        }
        if wrong := [str(port.host_port) for port in request.ports if port.host_port in taken]:
            raise NetworkError(f"port {wrong[0]} is taken")
        free = (number for number in itertools.count(_FIRST_PORT) if number not in taken)
        return tuple(
            structs.replace(port, host_port=port.host_port or next(free)) for port in request.ports
        )


def _nic(tap: int) -> Nic:
    return Nic(id="nic0", mac=_MAC, mtu=_MTU, descriptor=tap)


def mock_network(world: World) -> type[MockNetwork]:
    """Returns a plugin for one world."""
    return type("MockNetwork", (MockNetwork,), {"world": world})
