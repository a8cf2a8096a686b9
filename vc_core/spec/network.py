"""The network family: what a pod's machine is connected to.

A pod has a network plugin only if it asks for a network; without one it has its loopback alone. A
pod's network is a network namespace of its own on the host, with a tap for the machine. It lasts
from the start of the machine to its end: a pod that starts again gets a new one. Every operation
raises NetworkError when the network fails.
"""

from __future__ import annotations

from vc_core.spec.markers import operation
from vc_core.spec.values import Capability, Finding, Network, NetworkRequest, PodRef


class NetworkSpec:
    """Operations named network_*."""

    @operation
    async def network_capabilities(self, pod: PodRef) -> frozenset[Capability]:
        """Says what this plugin can do on this host beyond connecting a pod: PORTS, NETWORK_POLICY.
        Raises nothing.

        The engine calls it before network_connect and refuses a request that needs more.
        """
        raise NotImplementedError

    @operation
    async def network_connect(self, pod: PodRef, request: NetworkRequest) -> Network:
        """Makes the pod's network and returns its tap, the guest's configuration and the published
        ports.

        Called by the engine while the machine starts. It first removes what an earlier call for
        this pod has left. The ports accept connections when it returns, in the order of the
        request, each with its port on the host. The policy is in force before the tap exists. The
        network outlives the calling process. Raises NetworkError when a port is taken, naming the
        port; nothing of the network is left then.
        """
        raise NotImplementedError

    @operation
    async def network_is_connected(self, pod: PodRef) -> bool:
        """Tells whether the pod's network works: False when one of its processes has died, or after
        disconnecting.

        Called by the engine, in any process, to tell users. Changes nothing.
        """
        raise NotImplementedError

    @operation
    async def network_disconnect(self, pod: PodRef) -> None:
        """Removes the pod's network; its ports are free afterwards. May be called twice.

        Called by the engine after the machine's end, in any process; the plugin finds what belongs
        to the pod by the pod's run folder. That may be gone after a reboot of the host, which is no
        error.
        """
        raise NotImplementedError

    @operation
    async def network_diagnose(self) -> tuple[Finding, ...]:
        """What a user should know about this host: programs, devices, permissions. Belongs to no
        pod.
        """
        raise NotImplementedError
