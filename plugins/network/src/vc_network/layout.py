"""Names and addresses in a pod's network namespace.

Every pod has a namespace of its own, so all pods have the same addresses: a clone needs no other
address than its template. All IPv4 addresses are of 192.0.0.0/29, which is for such links
(RFC 7335); the IPv6 ones are unique local.

    guest (GUEST) -- tap (ROUTER) -- forwarding and nft -- uplink -- pasta (NEXT_HOP)
"""

from __future__ import annotations

from dataclasses import dataclass

from vc_core.spec import TEMPLATE_MAC

TAP = "tap0"
UPLINK = "uplink"

GUEST_MAC = TEMPLATE_MAC
TAP_MAC = "02:76:63:00:00:01"
UPLINK_MAC = "02:76:63:00:00:03"
NEXT_HOP_MAC = "02:76:63:00:00:06"

# pasta terminates TCP connections itself: the MTU of the network applies to the host's sockets, not
# to the guest's packets.
MTU = 65520
_LEAST_BURST = 1 << 17


@dataclass(frozen=True)
class Family:
    """Addresses of one version of IP.

    Attributes:
        version: 4 or 6.
        guest: address of the guest.
        router: address of the namespace, on the tap.
        next_hop: address of pasta, behind the uplink.
        resolver: destination of the guest's DNS queries; pasta passes them to the host's first name
            server.
        bits: length of an address in bits.
    """

    version: int
    guest: str
    router: str
    next_hop: str
    resolver: str
    bits: int

    @property
    def loopback(self) -> str:
        """The loopback address of the namespace."""
        return "127.0.0.1" if self.version == 4 else "::1"


V4 = Family(4, "192.0.0.2", "192.0.0.1", "192.0.0.6", "192.0.0.5", 32)
V6 = Family(6, "fd76:6300::2", "fd76:6300::1", "fd76:6300::6", "", 128)


def ip_commands(families: tuple[Family, ...]) -> str:
    """Returns the input of `ip -batch` that connects tap and uplink.

    The tap is up as late as possible, because its machine may run already: only routes that lead
    to it come later, as the kernel refuses them for an interface that is down.
    """
    lines = ["link set lo up"]
    for name, mac in ((TAP, TAP_MAC), (UPLINK, UPLINK_MAC)):
        lines.append(f"link set dev {name} address {mac} mtu {MTU}")
    lines.append(f"link set dev {UPLINK} up")
    for family in families:
        no_detection = " nodad" if family.version == 6 else ""
        lines += [
            f"addr add {family.router}/{family.bits} dev {TAP}{no_detection}",
            f"neigh replace {family.next_hop} lladdr {NEXT_HOP_MAC} dev {UPLINK} nud permanent",
            f"route add default via {family.next_hop} dev {UPLINK} onlink",
        ]
    lines.append(f"link set dev {TAP} up")
    if V6 in families:
        # An answer to a client on the namespace's ::1 gets this address back before it is routed,
        # and the kernel has no route to it for what comes from another interface than lo. What a
        # guest itself sends to ::1 is dropped before.
        lines.append(f"route add local {V6.loopback}/128 dev {TAP} table local")
    for family in families:
        lines += [
            f"route add {family.guest}/{family.bits} dev {TAP}",
            f"neigh replace {family.guest} lladdr {GUEST_MAC} dev {TAP} nud permanent",
        ]
    return "".join(f"{line}\n" for line in lines)


def sysctls(families: tuple[Family, ...]) -> dict[str, str]:
    """Returns settings of the namespace by their paths below /proc/sys/net.

    pasta connects to the namespace's 127.0.0.1 for clients on the host's; the rules forward that to
    the guest, which the kernel refuses without route_localnet.
    """
    settings = {"ipv4/ip_forward": "1", "ipv4/conf/all/route_localnet": "1"}
    if V6 in families:
        settings |= {"ipv6/conf/all/accept_ra": "0", "ipv6/conf/all/forwarding": "1"}
    return settings


def burst(bits: int) -> int:
    """Returns the size of the bucket of a rate in bits per second, in bytes."""
    return max(_LEAST_BURST, bits // 8 // 100)


def tc_commands(bits_in: int, bits_out: int) -> str:
    """Returns the input of `tc -batch` that limits what the guest receives and sends.

    Both queues are on the way out of the namespace, so that senders are slowed down and packets
    are dropped only when a queue is full. A packet of the tap may hold 64 KiB, less than a burst.

    Args:
        bits_in: bits per second that the guest receives; 0 for any number.
        bits_out: bits per second that it sends; 0 for any number.
    """
    limits = ((TAP, bits_in), (UPLINK, bits_out))
    return "".join(
        f"qdisc replace dev {name} root tbf rate {bits}bit burst {burst(bits)} latency 200ms\n"
        for name, bits in limits
        if bits
    )
