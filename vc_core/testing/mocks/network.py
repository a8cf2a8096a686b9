"""A network plugin with mock networks."""

from __future__ import annotations

import itertools
import os

from msgspec import structs

from vc_core.spec import (
    Capability,
    Finding,
    GuestNetwork,
    Interface,
    Network,
    NetworkDenial,
    NetworkError,
    NetworkRequest,
    NetworkSpec,
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


class MockNetwork(NetworkSpec):
    """The mock network plugin: publishes ports of a table, with /dev/null as taps."""

    world: World

    @hookimpl
    async def network_capabilities(self, pod: PodRef) -> frozenset[Capability]:
        return frozenset({Capability.PORTS, Capability.NETWORK_POLICY})

    @hookimpl
    async def network_connect(self, pod: PodRef, request: NetworkRequest) -> Network:
        self.world.networks.pop(pod.id, None)
        ports = self.published(request)
        self.world.networks[pod.id] = MockConnection(ports)
        nic = Nic(
            id="nic0", mac=_MAC, mtu=_MTU, descriptor=os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        )
        guest = GuestNetwork(
            mac=_MAC,
            mtu=_MTU,
            addresses=("192.0.2.2/32",),
            gateways=("192.0.2.1",),
            name_servers=("192.0.2.53",),
        )
        return Network(interfaces=(Interface(nic=nic, guest=guest),), ports=ports)

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
        self.world.networks.pop(pod.id, None)

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


def mock_network(world: World) -> type[MockNetwork]:
    """Returns a plugin for one world."""
    return type("MockNetwork", (MockNetwork,), {"world": world})
