"""The configuration lists of networks that `vc network create` has made.

The key "vc" of a list says that it is ours; CNI's programs ignore keys that they do not know.
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Iterator

from vc_network.cni.configuration import NetworkList

KEY = "vc"

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
