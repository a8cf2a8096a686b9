"""The plugin `given`: the network of a namespace that somebody else has made and removes."""

from __future__ import annotations

import shutil
from pathlib import Path

from vc_core.spec import (
    Capability,
    Finding,
    Network,
    NetworkDenial,
    NetworkRequest,
    NetworkSpec,
    PodRef,
    hookimpl,
)
from vc_network import attachment, doctor, namespace, netns
from vc_network.errors import NetworkFailure, translated
from vc_network.namespace import folder


class GivenNetwork(NetworkSpec):
    """The plugin `given`. NetworkRequest.name is the path of the namespace.

    The guest takes over its interfaces, whatever connects them; there may be none. Nothing is made
    in it but taps, their redirection, and a table of nft. The namespace itself is never
    removed. Keeps no state.
    """

    @hookimpl
    async def network_capabilities(self, pod: PodRef) -> frozenset[Capability]:
        return frozenset()

    @hookimpl
    @translated
    async def network_connect(self, pod: PodRef, request: NetworkRequest) -> Network:
        path = Path(request.name)
        if not path.is_absolute():
            raise NetworkFailure("no network namespace is named; ask for ns:/PATH")
        namespace.check_device()
        with netns.opened(path, request.namespace) as descriptor:
            if netns.is_hosts(descriptor):
                raise NetworkFailure(
                    f"{path} is the host's own network namespace, which a machine cannot have; "
                    "ask for the network full, or make a namespace"
                )
        found = await attachment.attach(pod.run_dir, path, namespace=request.namespace)
        return Network(interfaces=found)

    @hookimpl
    @translated
    async def network_take_loopback(self, pod: PodRef) -> int:
        return await attachment.take_loopback(pod.run_dir)

    @hookimpl
    async def network_is_connected(self, pod: PodRef) -> bool:
        return await attachment.is_attached(pod.run_dir)

    @hookimpl
    async def network_denials(self, pod: PodRef) -> tuple[NetworkDenial, ...]:
        return ()  # nothing is enforced

    @hookimpl
    @translated
    async def network_disconnect(self, pod: PodRef) -> None:
        await _remove(pod)

    @hookimpl
    async def network_diagnose(self) -> tuple[Finding, ...]:
        return (*doctor.diagnose_redirected(), doctor.forwarding())


async def _remove(pod: PodRef) -> None:
    await attachment.detach(pod.run_dir)
    if folder(pod.run_dir).exists():
        shutil.rmtree(folder(pod.run_dir))
