"""The data path of a namespace that has interfaces of its own: taps, redirected by tc.

    guest -- virtio-net -- tap -- tc, both ways -- eth0 of the namespace -- whatever is behind it

Each frame that arrives on the interface goes to the tap, and the other way round. So the guest has
the interface's own MAC address, addresses and routes, and the namespace's kernel sees no frame. The
interface keeps its addresses there, where CNI's CHECK looks for them.
"""

from __future__ import annotations

import errno
import ipaddress
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from vc_core.spec import GuestNetwork, Interface, Nic, Route
from vc_network.errors import NetworkFailure
from vc_network.inside import open_tap
from vc_network.netns import listed, listed_together, run

_TAP_PREFIX = "vctap"
_LINK_TYPES = ("ether",)
_INGRESS = "ffff:"
_ASIDE_BYTES = 4  # of a name of at most 15 characters
_DEFAULT_MTU = 1500  # linux/if_ether.h, ETH_DATA_LEN


@dataclass(frozen=True)
class Link:
    """An interface of a namespace.

    Attributes:
        name: in the namespace.
        guest: how the guest configures its own.
    """

    name: str
    guest: GuestNetwork


def look() -> tuple[Link, ...]:
    """Returns the interfaces of this thread's namespace that a guest can have.

    Raises:
        NetworkFailure: an interface has addresses, and is none that a guest can have.
    """
    shown, routes = listed_together("address show", "route show")
    shown = [one for one in shown if not _is_left_out(one)]
    if any(":" in address for one in shown for address in _addresses(one)):
        routes += listed("-6", "route", "show")
    links = []
    for found in shown:
        addresses = _addresses(found)
        if found.get("link_type") not in _LINK_TYPES or "UP" not in found["flags"]:
            if addresses:
                raise NetworkFailure(
                    f"the interface {found['ifname']} is no Ethernet interface that is up, "
                    "and a machine takes no other"
                )
            continue
        links.append(Link(found["ifname"], _guest(found, addresses, routes)))
    return tuple(links)


def first_tap() -> Nic:
    """Makes the tap of the first interface in this thread's namespace. The tap is down.

    Raises:
        NetworkFailure: the tap cannot be made.
    """
    return Nic(id=_nic_id(0), mac="", mtu=_DEFAULT_MTU, descriptor=_open_tap(0))


def open_taps(links: tuple[Link, ...], first: int, opened: list[int]) -> None:
    """Makes a tap for each interface in this thread's namespace.

    Args:
        links: the interfaces.
        first: number of the first interface that has none.
        opened: gets the descriptor of each tap, which the caller closes also after a failure.

    Raises:
        NetworkFailure: a tap cannot be made.
    """
    opened += (_open_tap(index) for index in range(first, len(links)))


def connect(links: tuple[Link, ...]) -> None:
    """Redirects frames between each interface of this thread's namespace and its tap.

    Raises:
        NetworkFailure: a step failed; `disconnect` removes what there is.
    """
    for index, link in enumerate(links):
        tap = f"{_TAP_PREFIX}{index}"
        # The guest sends from its own MAC only. So a clone is not heard as long as it has its
        # origin's, and no guest takes over the traffic of another one.
        rules = (
            *_redirected(link.name, tap, "u8 0 0"),
            *_redirected(tap, link.name, f"ether src {link.guest.mac}"),
        )
        text = "".join(f"{rule}\n" for rule in rules)
        try:
            run("tc", "-batch", "-", text=text)
        except NetworkFailure:  # another machine has been redirected here
            disconnect((link.name, tap))
            run("tc", "-batch", "-", text=text)
        # Only now: the machine may run already.
        set_up = f"link set dev {tap} mtu {link.guest.mtu}\nlink set dev {tap} up\n"
        run("ip", "-batch", "-", text=set_up)


def interfaces(links: tuple[Link, ...], opened: list[int]) -> tuple[Interface, ...]:
    """Returns the interfaces with their taps."""
    return tuple(
        Interface(
            nic=Nic(
                id=_nic_id(index),
                mac=link.guest.mac,
                mtu=link.guest.mtu,
                descriptor=descriptor,
            ),
            guest=link.guest,
        )
        for index, (link, descriptor) in enumerate(zip(links, opened, strict=True))
    )


def is_redirected(name: str) -> bool:
    """Returns whether an interface of this thread's namespace is there and redirected.

    Whether the tap is there is not asked: it lives as long as the machine.
    """
    return name in _present() and "mirred" in run(
        "tc", "filter", "show", "dev", name, "parent", _INGRESS
    )


def disconnect(names: tuple[str, ...]) -> None:
    """Removes the redirection of interfaces in this thread's namespace, where there is one."""
    _disconnect(names, _present())


def give_up(names: tuple[str, ...]) -> None:
    """Removes the redirection of interfaces in this thread's namespace, and sets their taps aside.

    A tap is still there when a machine holds it that goes on. From then on no frame passes it, and
    another one can have its name. It is not deleted: QEMU would read from it without a pause.

    Raises:
        NetworkFailure: a program failed.
    """
    if not names:
        return
    present = _present()
    _disconnect(names, present)
    for index in range(len(names)):
        tap = f"{_TAP_PREFIX}{index}"
        if tap in present:
            aside = f"{_TAP_PREFIX}-{secrets.token_hex(_ASIDE_BYTES)}"
            commands = f"link set dev {tap} down\nlink set dev {tap} name {aside}\n"
            run("ip", "-batch", "-", text=commands)


def _present() -> set[str]:
    return {found["ifname"] for found in listed("link", "show")}


def _disconnect(names: tuple[str, ...], present: set[str]) -> None:
    for name in names:
        if name in present and "ingress" in run("tc", "qdisc", "show", "dev", name):
            run("tc", "qdisc", "del", "dev", name, "ingress")


def _nic_id(index: int) -> str:
    return f"nic{index}"


def _open_tap(index: int) -> int:
    try:
        return open_tap(f"{_TAP_PREFIX}{index}")
    except OSError as error:
        busy = "another machine uses it" if error.errno == errno.EBUSY else error.strerror
        raise NetworkFailure(f"no tap can be made in the network namespace: {busy}") from error


def _redirected(source: str, target: str, match: str) -> Iterator[str]:
    # u32 also where an empty match is wanted: not every kernel has matchall.
    match = f"protocol all u32 match {match}"
    action = f"action mirred egress redirect dev {target}"
    yield f"qdisc add dev {source} ingress"
    yield f"filter add dev {source} parent {_INGRESS} {match} {action}"


def _is_left_out(found: dict[str, Any]) -> bool:
    return "LOOPBACK" in found["flags"] or found["ifname"].startswith(_TAP_PREFIX)


def _addresses(found: dict[str, Any]) -> tuple[str, ...]:
    return tuple(
        f"{one['local']}/{one['prefixlen']}"
        for one in found["addr_info"]
        if one.get("scope") != "link" and "local" in one
    )


def _guest(
    found: dict[str, Any], addresses: tuple[str, ...], routes: list[dict[str, Any]]
) -> GuestNetwork:
    own = [route for route in routes if route.get("dev") == found["ifname"]]
    if odd := [route for route in own if "gateway" not in route and route["dst"] == "default"]:
        raise NetworkFailure(
            f"the default route of {odd[0]['dev']} has no gateway, which a guest cannot have"
        )
    gateways = {
        ipaddress.ip_address(route["gateway"]).version: route["gateway"]
        for route in reversed(own)  # the first one listed has the lowest metric
        if route["dst"] == "default"
    }
    others = tuple(
        Route(destination=_network(route["dst"]), gateway=route.get("gateway", ""))
        for route in own
        # The kernel makes these by itself, from an address.
        if route["dst"] != "default"
        and route.get("protocol") != "kernel"
        and not route["dst"].startswith(("fe80:", "ff00:"))
    )
    return GuestNetwork(
        mac=found["address"],
        mtu=found["mtu"],
        addresses=addresses,
        gateways=tuple(gateways[version] for version in sorted(gateways)),
        routes=others,
    )


def _network(text: str) -> str:
    return str(ipaddress.ip_network(text, strict=False))
