"""What crosses the border about networks."""

from __future__ import annotations

import enum

from msgspec import Struct

from vc_core.spec.values.vm import Nic


class PortProtocol(enum.StrEnum):
    """What a port belongs to."""

    TCP = "tcp"
    UDP = "udp"


class NetworkPolicy(enum.StrEnum):
    """Which addresses a pod can reach. The host enforces it, never the guest."""

    # All but private, link-local, loopback, metadata and multicast ones, and those of the host.
    PUBLIC = "public"
    FULL = "full"  # whatever the host can reach, but not the host's loopback


class Dns(Struct, frozen=True, kw_only=True):
    """The contents of the containers' /etc/resolv.conf.

    Attributes:
        servers: addresses of the name servers.
        searches: search domains.
        options: options of resolv.conf(5).
    """

    servers: tuple[str, ...] = ()
    searches: tuple[str, ...] = ()
    options: tuple[str, ...] = ()


class HostEntry(Struct, frozen=True, kw_only=True):
    """A line of the containers' /etc/hosts.

    Attributes:
        name: that is looked up.
        address: IPv4 or IPv6.
    """

    name: str
    address: str


class PortMapping(Struct, frozen=True, kw_only=True):
    """A port of the host that leads into the pod.

    Attributes:
        guest_port: 1 to 65535.
        host_port: 0 lets the network plugin choose a free one.
        host_ip: an address of the host, IPv4 or IPv6; "0.0.0.0" and "::" are all of them.
        protocol: TCP or UDP.
    """

    guest_port: int
    host_port: int = 0
    host_ip: str = "127.0.0.1"
    protocol: PortProtocol = PortProtocol.TCP


class NetworkRequest(Struct, frozen=True, kw_only=True):
    """What a pod asks of its network.

    Attributes:
        policy: which addresses the pod can reach.
        ports: ports of the host that lead into the pod.
    """

    policy: NetworkPolicy
    ports: tuple[PortMapping, ...] = ()


class GuestNetwork(Struct, frozen=True, kw_only=True):
    """How the guest configures its interface.

    Attributes:
        mac: of the interface: by this the guest finds it.
        mtu: in bytes.
        addresses: with prefix lengths: "192.0.0.2/32".
        gateways: at most one for each of IPv4 and IPv6: routers of the default routes, reachable on
            the interface whatever the prefix lengths are.
        name_servers: addresses for resolv.conf, used where the pod names none of its own.
    """

    mac: str
    mtu: int
    addresses: tuple[str, ...]
    gateways: tuple[str, ...] = ()
    name_servers: tuple[str, ...] = ()


class Network(Struct, frozen=True, kw_only=True):
    """A network that a pod is connected to.

    Attributes:
        nic: the tap for the machine. The caller closes the descriptor.
        guest: how the guest configures its interface.
        ports: as they were published, each with its port on the host.
    """

    nic: Nic
    guest: GuestNetwork
    ports: tuple[PortMapping, ...] = ()
