"""The nft rules between guest and uplink, enforced by the host's kernel in the pod's namespace."""

from __future__ import annotations

from collections.abc import Iterable

from vc_core.spec import NetworkPolicy, PortMapping
from vc_network.layout import TAP, UPLINK, V4, V6, Family

# Not globally reachable (IANA's special-purpose registries), multicast, and ranges that embed IPv4
# addresses. The ranges for documentation are left out, because they are unused.
_DENIED = {
    4: (
        *(
            "0.0.0.0/8",
            "10.0.0.0/8",
            "100.64.0.0/10",
            "127.0.0.0/8",
            "169.254.0.0/16",
            "172.16.0.0/12",
        ),
        *(
            "192.0.0.0/24",
            "192.88.99.0/24",
            "192.168.0.0/16",
            "198.18.0.0/15",
            "224.0.0.0/4",
            "240.0.0.0/4",
        ),
    ),
    6: (
        *(
            "::/96",
            "::ffff:0:0/96",
            "64:ff9b::/96",
            "64:ff9b:1::/48",
            "100::/64",
            "2001::/23",
            "2002::/16",
        ),
        *("fc00::/7", "fe80::/10", "fec0::/10", "ff00::/8"),
    ),
}


def ruleset(
    policy: NetworkPolicy,
    ports: Iterable[PortMapping],
    families: tuple[Family, ...],
    own: Iterable[str],
) -> str:
    """Returns the input of `nft -f`.

    Args:
        policy: the addresses that the guest can reach.
        ports: ports that are forwarded to the guest.
        families: versions of IP that the guest has.
        own: the host's addresses, which do not count as outside addresses.
    """
    own = tuple(own)
    lines = ["table inet vc {"]
    for family in (V4, V6):
        kind = f"ipv{family.version}_addr"
        denied = [
            *_DENIED[family.version],
            *(address for address in own if (":" in address) == (family is V6)),
        ]
        lines.append(f"set denied{family.version} {{ type {kind}; flags interval; auto-merge;")
        lines.append(f"elements = {{ {', '.join(denied)} }} }}")
    lines += [
        "chain forward { type filter hook forward priority filter; policy drop;",
        *_guests_own(families),
        "ct state established,related accept",
        f'iifname "{UPLINK}" oifname "{TAP}" accept',
        f'iifname != "{TAP}" drop',
        f"ip daddr {V4.resolver} meta l4proto {{ tcp, udp }} th dport 53 accept",
        f"ip daddr {V4.resolver} reject with icmpx admin-prohibited",
    ]
    if policy is NetworkPolicy.PUBLIC:
        lines += [
            "ip daddr @denied4 counter reject with icmpx admin-prohibited",
            "ip6 daddr @denied6 counter reject with icmpx admin-prohibited",
        ]
    lines += [
        f'oifname "{UPLINK}" accept',
        "}",
        "chain input { type filter hook input priority filter; policy drop;",
        *_guests_own(families),
        f'iifname != "{TAP}" accept',
        "ct state established,related accept",
        "icmp type echo-request accept",
        "icmpv6 type { echo-request, nd-neighbor-solicit, nd-neighbor-advert } accept",
        "reject with icmpx admin-prohibited",
        "}",
        *_from_loopback(ports, families),
        "}",
    ]
    return "\n".join(lines) + "\n"


def _guests_own(families: tuple[Family, ...]) -> list[str]:
    """Returns rules that drop what the guest sends from addresses other than its own."""
    rules = [f'iifname "{TAP}" ip saddr != {V4.guest} drop']
    own = f"{{ {V6.guest}, fe80::/10, :: }}" if V6 in families else "::"
    return [*rules, f'iifname "{TAP}" ip6 saddr != {own} drop']


def _from_loopback(ports: Iterable[PortMapping], families: tuple[Family, ...]) -> list[str]:
    """Returns rules that forward connections to the namespace's loopback to the guest.

    pasta connects there for clients on the host's loopback.
    """
    targets = sorted({(port.protocol.value, port.guest_port) for port in ports})
    if not targets:
        return []
    lines = ["chain output { type nat hook output priority -100;"]
    for family in families:
        ip = "ip" if family is V4 else "ip6"
        lines += [
            f"{ip} daddr {family.loopback} {protocol} dport {number} dnat {ip} to {family.guest}"
            for protocol, number in targets
        ]
    lines += ["}", "chain postrouting { type nat hook postrouting priority 100;"]
    for family in families:
        ip = "ip" if family is V4 else "ip6"
        lines.append(f'oifname "{TAP}" {ip} saddr {family.loopback} snat {ip} to {family.router}')
    return [*lines, "}"]
