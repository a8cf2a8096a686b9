"""The host's rules for networks that `vc network create` has made."""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Iterable

from vc_core.driver_kit import find_program
from vc_network.cni.configuration import NetworkList
from vc_network.cni.own_lists import FIREWALL, Subnet, bridge_of, is_internal, is_own, subnets_of
from vc_network.netns import run

_FAMILIES = {4: ("ip", "224.0.0.0/4"), 6: ("ip6", "ff00::/8")}
_FILTERS = {4: "iptables", 6: "ip6tables"}
_ANSWERS = "RELATED,ESTABLISHED,DNAT"


def apply(network: NetworkList) -> None:
    """Sets the rules of an own network: of an internal one, or those for its way out.

    The rules are those of the host's namespace, where the bridge is; a reboot removes them, so each
    pod of the network sets them again.

    Raises:
        NetworkFailure: nft or iptables fails.
    """
    if not is_own(network):
        return
    bridge = bridge_of(network.name)
    if is_internal(network):
        _replace(network.name, _isolation(bridge))
        return
    _replace(network.name, _masquerading(subnets_of(network)))
    for program in _filters_of(network):
        _permit_forwarding(program, bridge)


def are_set(network: NetworkList) -> bool:
    """Returns whether the rules of nft are there that a pod with this list needs."""
    if not is_own(network) or FIREWALL in network.plugins:  # CNI has set its own for the pod
        return True
    return f"table inet {_table(network.name)}" in run("nft", "list", "tables", "inet")


def remove(network: NetworkList) -> None:
    """Removes the rules of an own network, where there are any.

    Raises:
        NetworkFailure: nft or iptables fails.
    """
    run("nft", "-f", "-", text=_removal(network.name))
    for program in _filters_of(network):
        for rule in _forwarding(program, bridge_of(network.name)):
            run(program, "--wait", "--delete", *rule)


def _filters_of(network: NetworkList) -> list[str]:
    """Returns the programs for the subnets of a network that are installed.

    Where one is missing, nothing on this host filters by it. A kernel without IPv6 has none for it.
    """
    versions = sorted({subnet.version for subnet in subnets_of(network)})
    found = [_FILTERS[version] for version in versions]
    return [one for one in found if find_program(one) is not None]


def _isolation(bridge: str) -> str:
    """Returns chains that let pods reach each other only, and their name server."""
    return f"""
  chain forward {{
    type filter hook forward priority -10;
    iifname "{bridge}" oifname != "{bridge}" drop
    oifname "{bridge}" iifname != "{bridge}" drop
  }}
  chain input {{
    type filter hook input priority -10;
    iifname "{bridge}" meta l4proto {{ tcp, udp }} th dport 53 accept
    iifname "{bridge}" icmpv6 type {{ nd-neighbor-solicit, nd-neighbor-advert }} accept
    iifname "{bridge}" ct state established,related accept
    iifname "{bridge}" drop
  }}
"""


def _masquerading(subnets: Iterable[Subnet]) -> str:
    """Returns a chain that gives what leaves a subnet an address of the host."""
    rules = "".join(
        f"    {family} saddr {subnet} {family} daddr != {{ {subnet}, {multicast} }} masquerade\n"
        for subnet in subnets
        for family, multicast in (_FAMILIES[subnet.version],)
    )
    return f"  chain postrouting {{\n    type nat hook postrouting priority 100;\n{rules}  }}\n"


def _permit_forwarding(program: str, bridge: str) -> None:
    """Lets pods reach the outside, and answers and published ports reach pods.

    A host may drop what is forwarded (Docker sets this policy), and what another table of nft
    accepts is dropped all the same.
    """
    found = _forwarding(program, bridge)
    for rule in (
        ["FORWARD", "-i", bridge, "-j", "ACCEPT"],
        ["FORWARD", "-o", bridge, "-m", "conntrack", "--ctstate", _ANSWERS, "-j", "ACCEPT"],
    ):
        if not any(rule[1:3] == one[1:3] for one in found):
            run(program, "--wait", "--insert", *rule)


def _forwarding(program: str, bridge: str) -> list[list[str]]:
    """Returns the rules of a bridge in the chain FORWARD: the chain's name and the rule's words."""
    lines = run(program, "--wait", "--list-rules", "FORWARD").splitlines()
    return [words[1:] for words in map(shlex.split, lines) if bridge in words]


def _replace(name: str, chains: str) -> None:
    table = f"table inet {_table(name)} {{\n{chains}}}\n"
    run("nft", "-f", "-", text=_removal(name) + table)


def _table(name: str) -> str:
    return f"vc_network_{hashlib.blake2b(name.encode(), digest_size=6).hexdigest()}"


def _removal(name: str) -> str:
    """Input of nft that removes the table, whether it is there or not."""
    return f"table inet {_table(name)} {{}}\ndelete table inet {_table(name)}\n"
