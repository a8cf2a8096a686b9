"""The configuration lists of networks that `vc network create` has made.

The key "vc" of a list says that it is ours; CNI's programs ignore keys that they do not know.
"""

from __future__ import annotations

import hashlib
import ipaddress
import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from vc_network.cni.configuration import NetworkList

KEY = "vc"

FIREWALL: Mapping[str, Any] = {"type": "firewall", "backend": "iptables"}
"""The entry of the plugin `firewall` in a new list."""

Subnet = ipaddress.IPv4Network | ipaddress.IPv6Network


def is_own(network: NetworkList) -> bool:
    """Returns whether `vc network create` has made a network."""
    return isinstance(network.extra.get(KEY), dict)


def is_internal(network: NetworkList) -> bool:
    """Returns whether pods of a network reach each other only."""
    ours = network.extra.get(KEY)
    return isinstance(ours, dict) and ours.get("internal") is True


def subnets_of(network: NetworkList) -> Iterator[Subnet]:
    """Yields the subnets of host-local, where they are valid."""
    for plugin in network.plugins:
        ipam = plugin.get("ipam")
        if not isinstance(ipam, dict):
            continue
        ranges = ipam.get("ranges", [])
        alternatives = [ipam, *(one for group in ranges for one in group)]
        for one in alternatives:
            try:
                yield ipaddress.ip_network(one["subnet"])
            except (KeyError, TypeError, ValueError):
                continue


def bridge_of(name: str) -> str:
    """Returns the name of a network's bridge: names of interfaces have 15 characters at most."""
    return f"vcb{hashlib.blake2b(name.encode(), digest_size=6).hexdigest()}"


def without_host_rules(network: NetworkList, capabilities: Mapping[str, Any]) -> NetworkList:
    """Returns the list that a pod of an own network gets: without what `own_rules` does for all.

    Each plugin of CNI that sets rules runs iptables eight to ten times for each pod. What a user
    has changed in the list stays. So does the list of a network that is not ours.

    Args:
        network: as it is in the directory, where other programs find the whole list.
        capabilities: what the pod asks of the plugins; those that exist for others only are left
            out.
    """
    if not is_own(network):
        return network
    plugins = []
    for plugin in network.plugins:
        if plugin == FIREWALL or _is_idle(plugin, capabilities):
            continue
        is_bridge = plugin["type"] == "bridge" and plugin.get("bridge") == bridge_of(network.name)
        plugins.append({**plugin, "ipMasq": False} if is_bridge else plugin)
    text = json.dumps({**json.loads(network.text), "plugins": plugins})
    return replace(network, plugins=tuple(plugins), text=text)


def _is_idle(plugin: Mapping[str, Any], capabilities: Mapping[str, Any]) -> bool:
    """Returns whether a plugin of an own list does nothing for a pod.

    Without their argument, ADD of both returns the result that it got (portmap.go and
    bandwidth.go of containernetworking/plugins).
    """
    needs = {"portmap": "portMappings", "bandwidth": "bandwidth"}.get(plugin["type"])
    is_default = not plugin.keys() - {"type", "capabilities", "snat"}
    return needs is not None and is_default and needs not in capabilities
