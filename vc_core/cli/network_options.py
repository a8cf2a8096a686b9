"""Command-line options about a pod's network."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

import click

from vc_core.cli.option_groups import add_options
from vc_core.first_party import NAMESPACE_PREFIX, NO_NETWORK
from vc_core.spec.errors import InvalidRequest
from vc_core.spec.values import (
    Dns,
    HostEntry,
    NetworkPolicy,
    PortMapping,
    PortProtocol,
    Reach,
)

F = TypeVar("F", bound=Callable[..., Any])

_PORT = (
    r"((?P<ip>[0-9]+(\.[0-9]+){3}|\[[0-9a-fA-F:.]+\]):)?((?P<host>[0-9]*(-[0-9]+)?):)?"
    r"(?P<guest>[0-9]+(-[0-9]+)?)(/(?P<protocol>tcp|udp))?"
)

publish_option = click.option(
    "--publish",
    "-p",
    "ports",
    multiple=True,
    metavar="[IP:][HOST:]PORT[/udp]",
    help="Publish a port of the pod on this host, on 127.0.0.1 by default. HOST 0 or none "
    "takes a free port. Ranges: 8000-8009:80-89.",
)

_NETWORKS = [*Reach, "NAME", f"{NAMESPACE_PREFIX}PATH"]

other_network_option = click.option(
    "--network",
    default="",
    metavar="|".join(_NETWORKS),
    show_default="like that of the pod",
    help="The network of the new pod.",
)

_OPTIONS = (
    click.option(
        "--network",
        default="",
        metavar="|".join([NO_NETWORK, *_NETWORKS]),
        show_default="use.network",
        help="What the pod can reach: nothing; all but private addresses and this host; whatever "
        "this host can reach; a CNI network; what a network namespace is connected to.",
    ),
    publish_option,
    click.option(
        "--allow",
        multiple=True,
        metavar="TARGET[:PORT][/udp]",
        show_default="pod.allow",
        help="Let the pod reach nothing but TARGET, within what its network reaches: a name, "
        "*.NAME, an address or a network. Only TCP, unless /udp is given. May be repeated.",
    ),
    click.option(
        "--deny",
        multiple=True,
        metavar="TARGET[:PORT][/tcp|udp]",
        show_default="pod.deny",
        help="Refuse TARGET, also if it is allowed. May be repeated.",
    ),
    click.option(
        "--rate-in",
        default="",
        metavar="RATE",
        show_default="pod.rate_in",
        help="Limit what the pod receives, e.g. to 10mbit.",
    ),
    click.option(
        "--rate-out",
        default="",
        metavar="RATE",
        show_default="pod.rate_out",
        help="Limit what the pod sends.",
    ),
    click.option("--dns", multiple=True, metavar="ADDRESS", help="Add a DNS server."),
    click.option("--dns-search", multiple=True, metavar="DOMAIN", help="Add a DNS search domain."),
    click.option(
        "--dns-option", multiple=True, metavar="OPTION", help="Add an option of resolv.conf(5)."
    ),
    click.option(
        "--add-host",
        "add_hosts",
        multiple=True,
        metavar="NAME:ADDRESS",
        help="Add a line to /etc/hosts.",
    ),
)


def network_options(function: F) -> F:
    """Decorate a command with the options about the network and names of a pod."""
    return add_options(_OPTIONS, function)


def name_servers(options: Mapping[str, Any]) -> Dns:
    """What --dns, --dns-search and --dns-option ask for."""
    return Dns(
        servers=options["dns"], searches=options["dns_search"], options=options["dns_option"]
    )


def policy(options: Mapping[str, Any]) -> NetworkPolicy:
    """What --allow, --deny, --rate-in and --rate-out ask for.

    Raises:
        InvalidRequest: a text that is no rule or no rate.
    """
    return NetworkPolicy.of(
        options["allow"], options["deny"], options["rate_in"], options["rate_out"]
    )


def host_entries(texts: Iterable[str]) -> tuple[HostEntry, ...]:
    """What --add-host asks for.

    Raises:
        InvalidRequest: a text that is not NAME:ADDRESS.
    """
    entries = []
    for text in texts:
        name, separator, address = text.partition(":")
        if not separator:
            raise InvalidRequest(f"--add-host {text!r} is not NAME:ADDRESS")
        entries.append(HostEntry(name=name, address=address.strip("[]")))
    return tuple(entries)


def port_mappings(texts: Iterable[str]) -> tuple[PortMapping, ...]:
    """What --publish asks for.

    Raises:
        InvalidRequest: a text that is none of the forms, or a range that does not fit the other
            one.
    """
    return tuple(port for text in texts for port in _mappings(text))


def port_text(port: PortMapping) -> str:
    """As `vc ps` shows it: 127.0.0.1:8080->80/tcp."""
    address = f"[{port.host_ip}]" if ":" in port.host_ip else port.host_ip
    return f"{address}:{port.host_port}->{port.guest_port}/{port.protocol}"


def _mappings(text: str) -> list[PortMapping]:
    match = re.fullmatch(_PORT, text)
    if match is None:
        raise InvalidRequest(f"--publish {text!r} is not [IP:][HOST:]PORT[/udp]")
    guest = _range(match["guest"])
    host = _range(match["host"]) if match["host"] else range(1)
    if host != range(1) and len(host) != len(guest):
        raise InvalidRequest(
            f"--publish {text!r}: the ranges have {len(host)} and {len(guest)} ports; "
            "make them equal"
        )
    hosts = [0] * len(guest) if host == range(1) else host
    ip = (match["ip"] or "127.0.0.1").strip("[]")
    protocol = PortProtocol(match["protocol"] or "tcp")
    return [
        PortMapping(guest_port=inner, host_port=outer, host_ip=ip, protocol=protocol)
        for outer, inner in zip(hosts, guest, strict=True)
    ]


def _range(text: str) -> range:
    first, _, last = text.partition("-")
    return range(int(first or 0), int(last or first or 0) + 1)
