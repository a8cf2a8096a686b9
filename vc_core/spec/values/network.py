"""Values of the contract about networks."""

from __future__ import annotations

from msgspec import Struct

from vc_core.spec.values.network_policy import NetworkPolicy, PortProtocol, Reach
from vc_core.spec.values.vm import Nic

TEMPLATE_MAC = "02:76:63:00:00:02"
"""MAC address of the interface in a template. A plugin uses it for guests that all have the same
addresses, each alone on its link: a clone then resumes with this MAC and with the addresses of the
pod that made the template. Guests with any other MAC resume with an interface that is down."""


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
        name: the host name.
        address: IPv4 or IPv6 address.
    """

    name: str
    address: str


class PortMapping(Struct, frozen=True, kw_only=True):
    """A port of the host that is forwarded to the pod.

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
    """A pod's request for a network.

    Attributes:
        reach: the addresses that the pod can reach.
        ports: ports of the host that are forwarded to the pod.
        name: which of the plugin's networks: a network's name, or the path of a network namespace;
            empty for the plugin's only or configured one.
        namespace: where the name is a path through a process, `driver_kit.process_namespace` of
            what it was when the pod was created; else empty.
        policy: limits within the reach.
        name_servers: addresses of the DNS servers that answer where the policy has names; empty
            for the network's own. The pod asks the network, which asks them.
        dns: what the containers' resolv.conf is to have, for networks that pass it on. The agent
            writes that file.
    """

    reach: Reach
    ports: tuple[PortMapping, ...] = ()
    name: str = ""
    namespace: str = ""
    policy: NetworkPolicy = NetworkPolicy()
    name_servers: tuple[str, ...] = ()
    dns: Dns = Dns()


class Route(Struct, frozen=True, kw_only=True):
    """A route of the guest, other than a default route.

    Attributes:
        destination: with a prefix length: "10.0.0.0/8".
        gateway: address of the router; empty for what is reached on the interface itself.
    """

    destination: str
    gateway: str = ""


class NewNetwork(Struct, frozen=True, kw_only=True):
    """A network to make, for pods of this host.

    Attributes:
        name: letters, digits, "_", "." and "-".
        subnets: at most one each of IPv4 and IPv6, as "10.89.0.0/24"; the plugin chooses a free one
            of IPv4 when empty.
        has_ipv6: whether the plugin also chooses one of IPv6.
        is_internal: whether pods reach each other only.
        mtu: in bytes; 0 for that of the uplink.
    """

    name: str
    subnets: tuple[str, ...] = ()
    has_ipv6: bool = False
    is_internal: bool = False
    mtu: int = 0


class NamedNetwork(Struct, frozen=True, kw_only=True):
    """A network of the plugin.

    Attributes:
        name: as NetworkRequest.name has it.
        subnets: of its pods, where the plugin knows them.
        is_internal: whether pods reach each other only.
        is_own: whether network_create made it, and network_remove removes it.
        pods: ids of the pods that are in it.
        definition: what it is, as JSON.
    """

    name: str
    subnets: tuple[str, ...]
    is_internal: bool
    is_own: bool
    pods: tuple[str, ...]
    definition: str


class GuestNetwork(Struct, frozen=True, kw_only=True):
    """The configuration of the guest's interface.

    Attributes:
        mac: MAC address of the interface.
        mtu: in bytes.
        addresses: with prefix lengths: "192.0.0.2/32".
        gateways: routers of the default routes, at most one each for IPv4 and IPv6; reachable on
            the interface with any prefix length.
        routes: other routes. With a prefix length of its own, an address brings one.
        name_servers: addresses for resolv.conf, used where the pod names none of its own.
        restored_mac: MAC address that the interface has in a machine that was started from a saved
            one; empty for `mac` in any other. Such an interface loses what it had, and TCP
            connections end.
    """

    mac: str
    mtu: int
    addresses: tuple[str, ...]
    gateways: tuple[str, ...] = ()
    routes: tuple[Route, ...] = ()
    name_servers: tuple[str, ...] = ()
    restored_mac: str = ""


class Interface(Struct, frozen=True, kw_only=True):
    """One interface of a pod.

    Attributes:
        nic: the tap for the machine. The caller closes the descriptor.
        guest: the configuration of the guest's interface.
    """

    nic: Nic
    guest: GuestNetwork


class Network(Struct, frozen=True, kw_only=True):
    """A network that a pod is connected to.

    Attributes:
        interfaces: none in a namespace that has no interface.
        ports: the published ports, each with its port on the host.
    """

    interfaces: tuple[Interface, ...]
    ports: tuple[PortMapping, ...] = ()
