"""A network plugin under test, for the contract suite."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from msgspec import structs

from vc_core.spec import (
    Capability,
    Network,
    NetworkRequest,
    NetworkSpec,
    NewNetwork,
    Nic,
    PodRef,
    PortMapping,
    Reach,
    UnsupportedOperation,
)
from vc_core.testing.mocks import World
from vc_core.testing.rules import wired

_PLAIN = NetworkRequest(reach=Reach.FULL)
_TWO_PORTS = (PortMapping(guest_port=80), PortMapping(guest_port=443))
_CONNECT_S = 5


def _accepts(port: PortMapping) -> bool:
    try:
        socket.create_connection((port.host_ip, port.host_port), timeout=_CONNECT_S).close()
    except OSError:
        return False
    return True


@dataclass
class NetworkSubject:
    """A network plugin under test.

    Attributes:
        make: creates an object, as another process would.
        folder: an empty, private folder; pods get their run folders below it.
        accepts: returns whether the host accepts connections on a published TCP port.
        plain: a request without ports.
    """

    make: Callable[[], object]
    folder: Path
    accepts: Callable[[PortMapping], bool] = _accepts
    plain: NetworkRequest = _PLAIN
    world: World = field(default_factory=lambda: World(Path("/nowhere")))

    def network(self) -> NetworkSpec:
        """Returns its operations, by a new object."""
        return wired(self.world, network=self.make()).hooks

    def pod(self, name: str = "contract") -> PodRef:
        """Returns a pod with a run folder."""
        run_dir = self.folder / name
        run_dir.mkdir(mode=0o700, exist_ok=True)
        return PodRef(id=name, run_dir=run_dir)

    async def connect(self, pod: PodRef, request: NetworkRequest | None = None) -> Network:
        """Connects with a new object and closes the tap, as if the machine had ended."""
        network = await self.network().network_connect(pod=pod, request=request or self.plain)
        for interface in network.interfaces:
            os.close(interface.nic.descriptor)
        return network

    async def prepare(self, network: NetworkSpec, pod: PodRef) -> tuple[Nic, ...]:
        """Returns the taps of a network that is not connected yet.

        Raises:
            pytest.skip.Exception: the plugin makes none early.
        """
        try:
            return await network.network_prepare(pod=pod, request=self.plain)
        except UnsupportedOperation:
            pytest.skip("it does not implement network_prepare")

    async def ports(self) -> NetworkRequest:
        """Returns a request with ports.

        Raises:
            pytest.skip.Exception: the plugin publishes none.
        """
        if Capability.PORTS not in await self.network().network_capabilities(pod=self.pod()):
            pytest.skip("it does not declare Capability.PORTS")
        return structs.replace(self.plain, ports=_TWO_PORTS)

    async def named(self, name: str = "contract") -> NewNetwork:
        """Returns a network to make.

        Raises:
            pytest.skip.Exception: the plugin makes none.
        """
        if Capability.NETWORKS not in await self.network().network_capabilities(pod=self.pod()):
            pytest.skip("it does not declare Capability.NETWORKS")
        return NewNetwork(name=f"{name}{os.getpid()}")
