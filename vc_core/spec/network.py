"""The network family: connects a pod's machine to a network.

A pod has a network plugin only if it requests a network; otherwise it has only its loopback. A
pod's network is a network namespace of its own on the host, with a tap for the machine. It exists
from the start of the machine to its end: a pod that is started again gets a new one. Every
operation raises NetworkError when the network fails.
"""

from __future__ import annotations

from vc_core.spec.markers import operation, optional_operation
from vc_core.spec.values import (
    Capability,
    Finding,
    NamedNetwork,
    Network,
    NetworkDenial,
    NetworkRequest,
    NewNetwork,
    Nic,
    PodRef,
)


class NetworkSpec:
    """The operations named network_*."""

    @operation
    async def network_capabilities(self, pod: PodRef) -> frozenset[Capability]:
        """Returns the optional capabilities on this host: PORTS, NETWORK_POLICY, RATES, NETWORKS.

        Called by the engine before network_connect; it refuses a request that requires a missing
        capability. Raises nothing.
        """
        raise NotImplementedError

    @optional_operation
    async def network_prepare(self, pod: PodRef, request: NetworkRequest) -> tuple[Nic, ...]:
        """Creates the taps of the pod's network, which pass nothing yet, and returns them.

        Called by the engine before network_connect, for a machine that starts from a template: it
        gets the taps, and loads and runs while network_connect is at work. The kernel of the host
        drops all that the guest sends until reach and policy are in force. Guests that have
        TEMPLATE_MAC are told by it; the MAC address of any other may be empty. It first removes
        what an earlier call for this pod has left. The caller closes the descriptors, also of a
        network that is never connected; network_disconnect removes the rest of it. Raises
        NetworkError.
        """
        raise NotImplementedError

    @operation
    async def network_connect(self, pod: PodRef, request: NetworkRequest) -> Network:
        """Creates the pod's network; returns its tap, configuration and published ports.

        Called by the engine while the machine starts. After network_prepare of the same object it
        completes that network: the first interfaces have the taps of that call, in their order.
        Otherwise it first removes what an earlier call for this pod has left. The ports accept
        connections when it returns, in the order of the request, each with its port on the host.
        The reach and the policy are in force before a tap passes anything. Nothing that the guest
        does gets around them. The network outlives the calling process. Raises NetworkError when a
        port is taken, naming the port; nothing of the network is left then.
        """
        raise NotImplementedError

    @optional_operation
    async def network_take_loopback(self, pod: PodRef) -> int:
        """Returns a listening TCP socket for what connects to the namespace's own addresses in it.

        Called by the engine after network_connect, when a program is to forward these connections
        to the guest: programs of the host that enter the namespace reach its servers then, as they
        reach those of a container, at 127.0.0.1 and at the pod's address. The kernel redirects
        them, and getsockopt(2) with SO_ORIGINAL_DST tells what each was meant for. The caller
        closes the descriptor; network_disconnect removes the redirection. Raises NetworkError.
        """
        raise NotImplementedError

    @operation
    async def network_is_connected(self, pod: PodRef) -> bool:
        """Returns whether the pod's network works.

        False when one of its processes has died, or after disconnecting. Called by the engine, in
        any process, for the pod's status. Changes nothing.
        """
        raise NotImplementedError

    @operation
    async def network_denials(self, pod: PodRef) -> tuple[NetworkDenial, ...]:
        """Returns what the policy has refused to the pod since it was connected, the latest first.

        Denials of one destination or name are added up in one entry. The number of entries is
        limited, also for a guest that invents destinations. Empty for a pod without a network.
        Called by the engine, in any process. Changes nothing.
        """
        raise NotImplementedError

    @operation
    async def network_disconnect(self, pod: PodRef) -> None:
        """Removes the pod's network; its ports are free afterwards. May be called twice.

        Called by the engine after the machine's end, in any process; the plugin finds the pod's
        network by the pod's run folder. A run folder that is gone after a reboot of the host is
        no error.
        """
        raise NotImplementedError

    @optional_operation
    async def network_list(self) -> tuple[NamedNetwork, ...]:
        """Returns the networks that pods can be in, by name.

        Belongs to no pod. Declared by Capability.NETWORKS.
        """
        raise NotImplementedError

    @optional_operation
    async def network_create(self, wanted: NewNetwork) -> NamedNetwork:
        """Makes a network; it exists until network_remove, also over a reboot of the host.

        Belongs to no pod. Declared by Capability.NETWORKS. Raises NetworkError when there is a
        network of this name, or when its subnet is in use; names it.
        """
        raise NotImplementedError

    @optional_operation
    async def network_remove(self, name: str) -> None:
        """Removes a network that network_create made.

        Belongs to no pod. Declared by Capability.NETWORKS. Raises NetworkError when there is none,
        when somebody else made it, or when pods are in it; names them.
        """
        raise NotImplementedError

    @operation
    async def network_diagnose(self) -> tuple[Finding, ...]:
        """Reports whether this host is fit for the plugin: programs, devices, permissions.

        Belongs to no pod.
        """
        raise NotImplementedError
