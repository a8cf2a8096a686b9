"""Networks that `vc network create` makes: a bridge of this host with its subnets.

A network is a configuration list in CNI's directory, so that other programs can use it, too.
"""

from __future__ import annotations

import hashlib
import ipaddress
import json
import re
import shutil
from collections.abc import Iterator
from typing import Any

from vc_core.driver_kit import write_private_file
from vc_core.spec import NamedNetwork, NewNetwork
from vc_network.cni import configuration, own_rules
from vc_network.cni.cache import Cache, pod_of
from vc_network.cni.configuration import NetworkList
from vc_network.cni.options import CniOptions
from vc_network.cni.own_lists import (
    FIREWALL,
    KEY,
    Subnet,
    bridge_of,
    is_internal,
    is_own,
    subnets_of,
)
from vc_network.errors import NetworkFailure
from vc_network.netns import listed, run

_VERSION = "1.0.0"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")
# Podman's and Docker's choices are others; a subnet in use is left out.
_POOL_V4 = ipaddress.IPv4Network("10.210.0.0/16")
_PREFIX_V4 = 24
_MTU = range(1280, 65536)
_SMALLEST = {4: 29, 6: 112}


def networks_of(options: CniOptions, cache: Cache) -> tuple[NamedNetwork, ...]:
    """Returns all networks of CNI, by name."""
    networks, _ = configuration.load_all(options.config_dir)
    pods: dict[str, list[str]] = {}
    for found in cache.all():
        pods.setdefault(found.network, []).append(pod_of(found))
    return tuple(
        NamedNetwork(
            name=name,
            subnets=tuple(map(str, subnets_of(networks[name]))),
            is_internal=is_internal(networks[name]),
            is_own=is_own(networks[name]),
            pods=tuple(sorted(pods.get(name, []))),
            definition=networks[name].text,
        )
        for name in sorted(networks)
    )


def create(options: CniOptions, cache: Cache, wanted: NewNetwork) -> NamedNetwork:
    """Makes a network. The caller holds the lock of the cache.

    Raises:
        NetworkFailure: the name is taken, or a subnet is in use or not valid.
    """
    if not _NAME.fullmatch(wanted.name) or wanted.name in ("none", "public", "full"):
        raise NetworkFailure(
            f"{wanted.name!r} is no name for a network; use 1 to 63 letters, digits, '_', '.', "
            "'-', the first a letter or digit, and none of none, public, full"
        )
    networks, _ = configuration.load_all(options.config_dir)
    path = options.config_dir / f"vc-{wanted.name}.conflist"
    if wanted.name in networks or path.exists():
        raise NetworkFailure(f"there is a network {wanted.name} already")
    if wanted.mtu and wanted.mtu not in _MTU:
        raise NetworkFailure(f"the MTU {wanted.mtu} is not from 1280 to 65535")
    subnets = _chosen(wanted, list(networks.values()))
    half = path.with_suffix(".half")
    try:
        options.config_dir.mkdir(mode=0o755, parents=True, exist_ok=True)
        for unfinished in options.config_dir.glob("vc-*.half"):  # of callers that were killed
            unfinished.unlink()
        text = json.dumps(_configuration(options, wanted, subnets), indent=2) + "\n"
        write_private_file(half, text)
        half.chmod(0o644)
        half.rename(path)
    except OSError as error:
        half.unlink(missing_ok=True)
        raise NetworkFailure(
            f"the network {wanted.name} cannot be written to {path}: {error.strerror}"
        ) from error
    return next(one for one in networks_of(options, cache) if one.name == wanted.name)


def remove(options: CniOptions, cache: Cache, name: str) -> None:
    """Removes a network and its bridge. The caller holds the lock of the cache.

    Raises:
        NetworkFailure: it is not there, not ours, or in use.
    """
    network = configuration.find(options.config_dir, name)
    if not is_own(network) or network.path is None:
        raise NetworkFailure(
            f"the network {name} was not made by 'vc network create'; remove {network.path}"
        )
    users = sorted(pod_of(found) for found in cache.all() if found.network == name)
    if users:
        raise NetworkFailure(
            f"the network {name} is used by {', '.join(users)}; "
            "'vc pod delete --force POD' removes a pod"
        )
    own_rules.remove(network)
    bridge = bridge_of(name)
    if any(link["ifname"] == bridge for link in listed("link", "show")):
        run("ip", "link", "delete", bridge)
    leases = options.cache_dir / "networks" / name
    if leases.exists():
        shutil.rmtree(leases)
    network.path.unlink()  # last: after a failure the network can be removed again


def _chosen(wanted: NewNetwork, networks: list[NetworkList]) -> list[Subnet]:
    used = [(one.name, subnet) for one in networks for subnet in subnets_of(one)]
    used += [("a route of this host", subnet) for subnet in _routes()]
    subnets = [_valid(text) for text in wanted.subnets]
    if len({subnet.version for subnet in subnets}) != len(subnets):
        raise NetworkFailure("a network has one subnet of IPv4 and one of IPv6 at most")
    for subnet in subnets:
        for owner, other in used:
            if _overlap(subnet, other):
                raise NetworkFailure(f"the subnet {subnet} is in use: {owner} has {other}")
    if not subnets:
        free = _POOL_V4.subnets(new_prefix=_PREFIX_V4)
        found = next(
            (one for one in free if not any(_overlap(one, other) for _, other in used)), None
        )
        if found is None:
            raise NetworkFailure(f"no subnet of {_POOL_V4} is free; give one with --subnet")
        subnets.append(found)
    if wanted.has_ipv6 and not any(subnet.version == 6 for subnet in subnets):
        # Unique local (RFC 4193): the name makes the 40 bits that are to be random.
        unique = int.from_bytes(hashlib.blake2b(wanted.name.encode(), digest_size=5).digest())
        subnets.append(ipaddress.IPv6Network(((0xFD << 120) | (unique << 80), 64)))
    return subnets


def _valid(text: str) -> Subnet:
    try:
        subnet = ipaddress.ip_network(text)
    except ValueError as error:
        raise NetworkFailure(f"the subnet {text!r} is not valid: {error}") from error
    if subnet.prefixlen > _SMALLEST[subnet.version] or subnet.prefixlen == 0:
        raise NetworkFailure(
            f"the subnet {text} has no size for a network; use /1 to /{_SMALLEST[subnet.version]}"
        )
    if subnet.is_loopback or subnet.is_multicast or subnet.is_link_local:
        raise NetworkFailure(f"the subnet {text} is for other purposes; use a private one")
    return subnet


def _routes() -> Iterator[Subnet]:
    for version in ("-4", "-6"):
        for route in listed(version, "route", "show"):
            if route["dst"] != "default":
                yield ipaddress.ip_network(route["dst"], strict=False)


def _uplink_mtu() -> int:
    """Returns the MTU of the host's default route; 0 where there is none."""
    defaults = [
        *listed("-4", "route", "show", "default"),
        *listed("-6", "route", "show", "default"),
    ]
    links = {link["ifname"]: link["mtu"] for link in listed("link", "show")}
    found = [links[route["dev"]] for route in defaults if route.get("dev") in links]
    return min(found, default=0)


def _overlap(one: Subnet, other: Subnet) -> bool:
    if isinstance(one, ipaddress.IPv4Network) and isinstance(other, ipaddress.IPv4Network):
        return one.overlaps(other)
    if isinstance(one, ipaddress.IPv6Network) and isinstance(other, ipaddress.IPv6Network):
        return one.overlaps(other)
    return False


def _configuration(
    options: CniOptions, wanted: NewNetwork, subnets: list[Subnet]
) -> dict[str, Any]:
    ipam: dict[str, Any] = {
        "type": "host-local",
        "ranges": [[{"subnet": str(one), "gateway": str(one[1])}] for one in subnets],
        "dataDir": str(options.cache_dir / "networks"),
    }
    if not wanted.is_internal:
        defaults = {4: "0.0.0.0/0", 6: "::/0"}
        ipam["routes"] = [{"dst": defaults[one.version]} for one in subnets]
    bridge = {
        "type": "bridge",
        "bridge": bridge_of(wanted.name),
        "isGateway": True,
        "ipMasq": not wanted.is_internal,
        "hairpinMode": True,
        "ipam": ipam,
    }
    if mtu := wanted.mtu or _uplink_mtu():
        bridge["mtu"] = mtu
    portmap = {"type": "portmap", "capabilities": {"portMappings": True}, "snat": True}
    bandwidth = {"type": "bandwidth", "capabilities": {"bandwidth": True}}
    return {
        "cniVersion": _VERSION,
        "name": wanted.name,
        KEY: {"internal": wanted.is_internal},
        "plugins": [bridge, bandwidth]
        if wanted.is_internal
        else [bridge, portmap, FIREWALL, bandwidth],
    }
