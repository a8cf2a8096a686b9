"""Values of the contract about what a pod's network lets through."""

from __future__ import annotations

import enum
import ipaddress
import re
from collections.abc import Iterable
from typing import Self

from msgspec import Struct

from vc_core.spec.errors import InvalidRequest

IpNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network

_LABEL = r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?"
_NAME = rf"(\*\.)?{_LABEL}(\.{_LABEL})*"  # compiled by re at its first use, as the others
_RULE = (
    r"(\[(?P<v6>[^\]]*)\]|(?P<bare>[^:\[\]]*:[^\[\]]*:[^\[\]]*?)|(?P<other>[^:\[\]]*?))"
    r"(:(?P<first>[0-9]{1,5})(-(?P<last>[0-9]{1,5}))?)?(/(?P<protocol>tcp|udp))?"
)
_RATE = r"(?P<number>[0-9]{1,12})(?P<unit>|bit|kbit|mbit|gbit)"
_UNITS = {"": 1, "bit": 1, "kbit": 10**3, "mbit": 10**6, "gbit": 10**9}
_LOWEST_RATE, _HIGHEST_RATE = 8 * 10**3, 10**12
_FORM = "give NAME, ADDRESS or NETWORK, then :PORT or :PORT-PORT, then /tcp or /udp"

# What IANA's special-purpose registries list as not globally reachable, multicast, and ranges that
# embed IPv4 addresses. The ranges for documentation are left out, because nobody has them.
NOT_PUBLIC: tuple[IpNetwork, ...] = tuple(
    ipaddress.ip_network(text)
    for text in (
        *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16"),
        *("172.16.0.0/12", "192.0.0.0/24", "192.88.99.0/24", "192.168.0.0/16"),
        *("198.18.0.0/15", "224.0.0.0/4", "240.0.0.0/4"),
        *("::/96", "::ffff:0:0/96", "64:ff9b::/96", "64:ff9b:1::/48", "100::/64", "2001::/23"),
        *("2002::/16", "fc00::/7", "fe80::/10", "fec0::/10", "ff00::/8"),
    )
)
"""The addresses that `Reach.PUBLIC` refuses, beside those of the host."""


class PortProtocol(enum.StrEnum):
    """The protocol of a port."""

    TCP = "tcp"
    UDP = "udp"


class Reach(enum.StrEnum):
    """The addresses that a pod can reach. Enforced on the host, not by the guest."""

    # All but private, link-local, loopback, metadata and multicast ones, and those of the host.
    PUBLIC = "public"
    FULL = "full"  # all addresses that the host can reach, except its loopback


class NetworkRule(Struct, frozen=True, kw_only=True):
    """Destinations of a pod's packets.

    Attributes:
        target: a DNS name in lower case without a final dot ("*.deb.test" is all names below
            deb.test, and not deb.test), an address, or a network in CIDR notation.
        first_port: 0 for all ports; else 1 to 65535.
        last_port: the end of the range of ports, included; 0 with `first_port` 0.
        protocol: None is TCP for an allowed destination, every protocol for a denied one.
    """

    target: str
    first_port: int = 0
    last_port: int = 0
    protocol: PortProtocol | None = None

    @classmethod
    def of(cls, text: str) -> Self:
        """Parses a rule, e.g. "good.test:443", "198.51.100.0/24:80/tcp", "[2001:db8::1]:53/udp".

        Raises:
            InvalidRequest: the text is no rule.
        """
        match = re.fullmatch(_RULE, text)
        if match is None:
            raise InvalidRequest(f"{text!r} is no rule of a network: {_FORM}")
        first = int(match["first"] or 0)
        last = int(match["last"] or first)
        if match["first"] and not 1 <= first <= last <= 65535:
            raise InvalidRequest(f"{text!r} is no rule of a network: ports are 1 to 65535")
        written = match["v6"] or match["bare"] or match["other"] or ""
        return cls(
            target=_target(text, written),
            first_port=first,
            last_port=last,
            protocol=PortProtocol(match["protocol"]) if match["protocol"] else None,
        )

    @property
    def network(self) -> IpNetwork | None:
        """The addresses of the rule; None when it is about a name."""
        try:
            return ipaddress.ip_network(self.target)
        except ValueError:
            return None

    def covers(self, name: str) -> bool:
        """Returns whether the rule is about a DNS name, given in lower case without a final dot."""
        if self.target.startswith("*."):
            return name.endswith(self.target[1:]) and len(name) > len(self.target) - 1
        return name == self.target

    def __str__(self) -> str:
        """As it was written: the input of `of`."""
        ports = f":{self.first_port}" if self.first_port else ""
        ports += f"-{self.last_port}" if self.last_port != self.first_port else ""
        target = f"[{self.target}]" if ":" in self.target and ports else self.target
        return target + ports + (f"/{self.protocol}" if self.protocol else "")


class NetworkPolicy(Struct, frozen=True, kw_only=True):
    """Limits of a pod's network, within its `Reach`. Enforced on the host, not by the guest.

    A rule only takes away: what the reach of the pod refuses is never allowed by a rule.

    Attributes:
        allow: the only destinations of the pod; empty for all.
        deny: destinations that are refused, also when they are allowed. A denied name is refused
            when it is looked up, so that it must be an exception to an allowed one.
        bits_in: limit of what the pod receives, in bits per second; 0 for none.
        bits_out: limit of what the pod sends, in bits per second; 0 for none.
    """

    allow: tuple[NetworkRule, ...] = ()
    deny: tuple[NetworkRule, ...] = ()
    bits_in: int = 0
    bits_out: int = 0

    @classmethod
    def of(
        cls,
        allow: Iterable[str] = (),
        deny: Iterable[str] = (),
        rate_in: str = "",
        rate_out: str = "",
    ) -> Self:
        """Parses a policy; the rules as in `NetworkRule.of`, rates as "10mbit".

        Raises:
            InvalidRequest: a text is no rule or no rate.
        """
        return cls(
            allow=tuple(map(NetworkRule.of, allow)),
            deny=tuple(map(NetworkRule.of, deny)),
            bits_in=_bits(rate_in),
            bits_out=_bits(rate_out),
        )

    @property
    def has_names(self) -> bool:
        """Whether a rule is about names, so that the pod's look-ups must be filtered."""
        return any(rule.network is None for rule in (*self.allow, *self.deny))


class DenialReason(enum.StrEnum):
    """Why something of a pod was refused."""

    ADDRESS = "address"  # the destination is not allowed
    NAME = "name"  # the name is not allowed, and was not looked up
    REBINDING = "rebinding"  # an allowed name has an address that names may not have
    SPOOFED = "spoofed"  # a source address or a MAC that is not the guest's
    FRAGMENT = "fragment"  # a fragment, whose ports cannot be seen


class NetworkDenial(Struct, frozen=True, kw_only=True):
    """What a pod's network refused, added up.

    Attributes:
        reason: why.
        target: the address or the name; empty where it is not recorded. Comes from the guest.
        protocol: "tcp", "udp", "dns" or the name or number of another; empty where not recorded.
        port: 0 where there is none.
        count: of packets or look-ups since the network was connected.
        last_ns: when it last happened, in nanoseconds since the epoch, exact to a few seconds; 0
            where it is not recorded.
    """

    reason: DenialReason
    target: str = ""
    protocol: str = ""
    port: int = 0
    count: int = 1
    last_ns: int = 0


def _target(text: str, written: str) -> str:
    try:
        network = ipaddress.ip_network(written)
    except ValueError as error:
        if "/" in written or ":" in written or re.fullmatch(r"[0-9.]*", written):
            raise InvalidRequest(f"{text!r} is no rule of a network: {error}; {_FORM}") from error
    else:
        is_one = network.prefixlen == network.max_prefixlen
        return str(network.network_address) if is_one else str(network)
    name = written.lower().removesuffix(".")
    if len(name) > 253 or not re.fullmatch(_NAME, name):
        raise InvalidRequest(
            f"{text!r} is no rule of a network: {written!r} is no DNS name. A wildcard is *.NAME; "
            "write other letters than a to z in the form xn--"
        )
    return name


def _bits(text: str) -> int:
    if not text:
        return 0
    match = re.fullmatch(_RATE, text.lower())
    if match is None:
        raise InvalidRequest(f"{text!r} is no rate; give a number and kbit, mbit or gbit: 10mbit")
    bits = int(match["number"]) * _UNITS[match["unit"]]
    if not _LOWEST_RATE <= bits <= _HIGHEST_RATE:
        raise InvalidRequest(f"{text!r} is out of range; rates are 8kbit to 1000gbit")
    return bits
