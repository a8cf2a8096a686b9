"""The nft rules between guest and uplink, enforced by the host's kernel in the pod's namespace.

Packets of the guest pass, in this order:

    prerouting  drops other MACs and source addresses than the guest's, and fragments if there is an
                allow-list
    forward     passes what is established; refuses denied, not public and not allowed destinations
    input       of the namespace itself, the guest reaches the filter of names, and ICMP echo

What the namespace itself sends, as the filter of names does, passes

    outgoing    refuses all that is new on the uplink but DNS to the servers that the filter asks

What is refused is added up in sets of a limited size, which `denials` reads.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from dataclasses import dataclass

from vc_core.spec import (
    NOT_PUBLIC,
    NetworkPolicy,
    NetworkRule,
    PortMapping,
    Reach,
)
from vc_network.layout import GUEST_MAC, TAP, UPLINK, V4, V6, Family

TABLE = "vc"
REFUSED_S = 86_400
"""How long a refused destination is remembered, in seconds since the last packet to it."""

_REFUSED_SIZE = 512  # destinations of each kind: a guest can invent any number
_OPENED_SIZE = 4096  # addresses of one rule about names
_DNS = "meta l4proto { tcp, udp } th dport 53"


@dataclass(frozen=True)
class Link:
    """What the rules are about, beside the policy.

    Attributes:
        families: versions of IP that the guest has.
        ports: ports that are forwarded to the guest.
        own: the host's addresses, which are not public.
        servers: addresses of the DNS servers that the filter of names asks.
    """

    families: tuple[Family, ...]
    ports: tuple[PortMapping, ...] = ()
    own: tuple[str, ...] = ()
    servers: tuple[str, ...] = ()


def opened(number: int, version: int) -> str:
    """Returns the name of the set of addresses that a rule about names has opened.

    Args:
        number: the rule's place among the allowed ones.
        version: 4 or 6.
    """
    return f"opened{number}v{version}"


def ruleset(reach: Reach, policy: NetworkPolicy, link: Link) -> str:
    """Returns the input of `nft -f`."""
    lines = [
        f"table inet {TABLE} {{",
        *_sets(reach, policy, link),
        "chain refuse {",
        *_recorded(),
        "reject with icmpx admin-prohibited",
        "}",
        "chain prerouting { type filter hook prerouting priority -450;",
        *_guests_own(policy, link.families),
        "}",
        "chain forward { type filter hook forward priority filter; policy drop;",
        "ct state established,related accept",
        f'iifname "{UPLINK}" oifname "{TAP}" accept',
        f'iifname != "{TAP}" drop',
        f'oifname != "{UPLINK}" goto refuse',
        *_destinations(reach, policy),
        "}",
        "chain input { type filter hook input priority filter; policy drop;",
        f'iifname != "{TAP}" accept',
        "ct state established,related accept",
        *_filter_of_names(policy, link.families),
        "icmp type echo-request accept",
        "icmpv6 type { echo-request, nd-neighbor-solicit, nd-neighbor-advert } accept",
        "goto refuse",
        "}",
        "chain outgoing { type filter hook output priority filter; policy drop;",
        *_of_the_namespace(policy, link.servers),
        "}",
        *_translations(link),
        "}",
    ]
    return "\n".join(lines) + "\n"


def _sets(reach: Reach, policy: NetworkPolicy, link: Link) -> Iterator[str]:
    yield "counter spoofed {}"
    yield "counter fragments {}"
    for family in (V4, V6):
        kind = f"ipv{family.version}_addr"
        if reach is Reach.PUBLIC:
            refused = [str(one) for one in NOT_PUBLIC if one.version == family.version]
            refused += [
                one for one in link.own if ipaddress.ip_address(one).version == family.version
            ]
            yield f"set private{family.version} {{ type {kind}; flags interval; auto-merge;"
            yield f"elements = {{ {', '.join(refused)} }} }}"
        limits = f"size {_REFUSED_SIZE}; flags dynamic, timeout; timeout {REFUSED_S}s; counter;"
        yield (
            f"set refused{family.version} {{ type {kind} . inet_proto . inet_service; {limits} }}"
        )
        yield f"set refused_other{family.version} {{ type {kind} . inet_proto; {limits} }}"
        for number, rule in enumerate(policy.allow):
            if rule.network is None:
                name = opened(number, family.version)
                yield f"set {name} {{ type {kind}; size {_OPENED_SIZE}; flags timeout; }}"


def _recorded() -> Iterator[str]:
    for ip, version in (("ip", 4), ("ip6", 6)):
        yield (
            f"meta nfproto ipv{version} meta l4proto {{ tcp, udp }} "
            f"update @refused{version} {{ {ip} daddr . meta l4proto . th dport }}"
        )
        yield (
            f"meta nfproto ipv{version} meta l4proto != {{ tcp, udp }} "
            f"update @refused_other{version} {{ {ip} daddr . meta l4proto }}"
        )


def _guests_own(policy: NetworkPolicy, families: tuple[Family, ...]) -> Iterator[str]:
    """Yields rules that drop what the guest sends under other addresses than its own."""
    source = f'iifname "{TAP}"'
    yield f"{source} ether saddr != {GUEST_MAC} counter name spoofed drop"
    yield f"{source} ip saddr != {V4.guest} counter name spoofed drop"
    own = f"{{ {V6.guest}, fe80::/10, :: }}" if V6 in families else "::"
    yield f"{source} ip6 saddr != {own} counter name spoofed drop"
    if policy.allow or policy.deny:
        yield f"{source} ip frag-off & 0x3fff != 0 counter name fragments drop"
        yield f"{source} exthdr frag exists counter name fragments drop"


def _destinations(reach: Reach, policy: NetworkPolicy) -> Iterator[str]:
    if not policy.has_names and not policy.allow:
        yield f"ip daddr {V4.resolver} {_DNS} accept"
    yield f"ip daddr {V4.resolver} goto refuse"
    for rule in policy.deny:
        for match in _matches(rule, ""):
            yield f"{match} goto refuse"
    if reach is Reach.PUBLIC:
        yield "ip daddr @private4 goto refuse"
        yield "ip6 daddr @private6 goto refuse"
    for number, rule in enumerate(policy.allow):
        if rule.network is None:
            for ip, version in (("ip", 4), ("ip6", 6)):
                yield f"{ip} daddr @{opened(number, version)} {_service(rule, 'tcp')} accept"
        else:
            for match in _matches(rule, "tcp"):
                yield f"{match} accept"
    yield "goto refuse" if policy.allow else "accept"


def _matches(rule: NetworkRule, protocol: str) -> Iterator[str]:
    """Yields the matches of a rule about addresses; `protocol` is what it has without one."""
    if (network := rule.network) is not None:
        ip = "ip" if network.version == 4 else "ip6"
        yield f"{ip} daddr {network} {_service(rule, protocol)}"


def _service(rule: NetworkRule, protocol: str) -> str:
    chosen = rule.protocol.value if rule.protocol else protocol
    if not rule.first_port:
        return f"meta l4proto {chosen}" if chosen else ""
    ports = f"th dport {rule.first_port}-{rule.last_port}"
    if rule.first_port == rule.last_port:
        ports = f"th dport {rule.first_port}"
    return f"meta l4proto {chosen or '{ tcp, udp }'} {ports}"


def _filter_of_names(policy: NetworkPolicy, families: tuple[Family, ...]) -> Iterator[str]:
    if policy.has_names:
        for family in families:
            ip = "ip" if family is V4 else "ip6"
            yield f"{ip} daddr {family.router} {_DNS} accept"


def _of_the_namespace(policy: NetworkPolicy, servers: tuple[str, ...]) -> Iterator[str]:
    """Yields rules for a filter of names that a guest has broken into: it leads nowhere else.

    What is forwarded does not come here. New connections of pasta to published ports do: it makes
    them in the namespace, to its loopback.
    """
    yield f'oifname != "{UPLINK}" accept'
    yield "ct state established,related accept"
    if policy.has_names:
        for server in servers:
            ip = "ip" if ipaddress.ip_address(server).version == 4 else "ip6"
            yield f"{ip} daddr {server} {_DNS} accept"
    yield "icmpv6 type { nd-router-solicit, nd-neighbor-solicit, nd-neighbor-advert } accept"
    yield "reject with icmpx admin-prohibited"


def _translations(link: Link) -> Iterator[str]:
    """Yields rules that lead connections to the namespace's loopback to the guest.

    pasta connects there for clients on the host's loopback. What the namespace itself sends, for
    the filter of names, gets the guest's address: pasta answers to the address that it saw last.
    """
    targets = sorted({(port.protocol.value, port.guest_port) for port in link.ports})
    yield "chain output { type nat hook output priority -100;"
    for family in link.families:
        ip = "ip" if family is V4 else "ip6"
        for protocol, number in targets:
            yield (
                f"{ip} daddr {family.loopback} {protocol} dport {number} "
                f"dnat {ip} to {family.guest}"
            )
    yield "}"
    yield "chain postrouting { type nat hook postrouting priority 100;"
    for family in link.families:
        ip = "ip" if family is V4 else "ip6"
        yield f'oifname "{TAP}" {ip} saddr {family.loopback} snat {ip} to {family.router}'
        yield f'oifname "{UPLINK}" {ip} saddr {family.router} snat {ip} to {family.guest}'
    yield "}"
