"""Arguments of CNI's capabilities: what of a pod's request goes to the plugins of its network.

Form: containernetworking/cni, CONVENTIONS.md, "Well-known Capabilities".
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from typing import Any

from vc_core.spec import NetworkPolicy, NetworkRequest, PortMapping
from vc_network.cni.configuration import NetworkList
from vc_network.errors import NetworkFailure
from vc_network.layout import burst


def check(network: NetworkList, request: NetworkRequest) -> None:
    """Refuses what no plugin of the network does.

    Raises:
        NetworkFailure: ports or rates are asked for, and no plugin declares the capability.
    """
    if request.ports and not network.has("portMappings"):
        raise NetworkFailure(
            f"the network {network.name} publishes no ports: none of its plugins has the "
            "capability portMappings"
        )
    if _has_rates(request.policy) and not network.has("bandwidth"):
        raise NetworkFailure(
            f"the network {network.name} limits no rates: none of its plugins has the "
            "capability bandwidth"
        )


def arguments(request: NetworkRequest, published: Iterable[PortMapping]) -> dict[str, Any]:
    """Returns the arguments of a pod, by capability.

    A plugin gets those that it declares. That none declares `dns` is no reason to refuse: the
    containers' resolv.conf is written by the agent.

    Args:
        request: of the pod.
        published: its ports, with their numbers on the host.
    """
    found: dict[str, Any] = {}
    if ports := [_port_mapping(port) for port in published]:
        found["portMappings"] = ports
    if _has_rates(request.policy):
        found["bandwidth"] = _bandwidth(request.policy)
    dns = request.dns
    words = {"servers": dns.servers, "searches": dns.searches, "options": dns.options}
    if given := {name: list(values) for name, values in words.items() if values}:
        found["dns"] = given
    return found


def _has_rates(policy: NetworkPolicy) -> bool:
    return policy.bits_in > 0 or policy.bits_out > 0


def _bandwidth(policy: NetworkPolicy) -> dict[str, int]:
    """Returns rates in bits per second, and bursts in bits; ingress is what the pod receives."""
    found: dict[str, int] = {}
    for name, bits in (("ingress", policy.bits_in), ("egress", policy.bits_out)):
        if bits:
            found |= {f"{name}Rate": bits, f"{name}Burst": 8 * burst(bits)}
    return found


def _port_mapping(port: PortMapping) -> dict[str, Any]:
    is_any = ipaddress.ip_address(port.host_ip).is_unspecified
    return {
        "hostPort": port.host_port,
        "containerPort": port.guest_port,
        "protocol": port.protocol.value,
        "hostIP": "" if is_any else port.host_ip,
    }
