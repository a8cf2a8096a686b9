"""--publish and --add-host, as they are typed."""

from __future__ import annotations

import pytest

from vc_core.cli.network_options import host_entries, port_mappings, port_text
from vc_core.spec import HostEntry, InvalidRequest, PortMapping, PortProtocol

UDP = PortProtocol.UDP


@pytest.mark.parametrize(
    ("text", "ports"),
    [
        ("80", [PortMapping(guest_port=80)]),
        ("0:80", [PortMapping(guest_port=80)]),
        ("8080:80", [PortMapping(guest_port=80, host_port=8080)]),
        ("5353:53/udp", [PortMapping(guest_port=53, host_port=5353, protocol=UDP)]),
        (
            "192.0.2.1:8080:80/tcp",
            [PortMapping(guest_port=80, host_port=8080, host_ip="192.0.2.1")],
        ),
        ("192.0.2.1:80", [PortMapping(guest_port=80, host_port=0, host_ip="192.0.2.1")]),
        ("192.0.2.1::80", [PortMapping(guest_port=80, host_port=0, host_ip="192.0.2.1")]),
        (
            "[2001:db8::1]:8080:80",
            [PortMapping(guest_port=80, host_port=8080, host_ip="2001:db8::1")],
        ),
        (
            "8000-8001:80-81",
            [
                PortMapping(guest_port=80, host_port=8000),
                PortMapping(guest_port=81, host_port=8001),
            ],
        ),
        ("80-81", [PortMapping(guest_port=80), PortMapping(guest_port=81)]),
    ],
)
def test_ports_are_published_as_docker_users_type_it(text, ports):
    assert list(port_mappings([text])) == ports


@pytest.mark.parametrize(
    "text", ["", "web", "80:web", "80/sctp", "::1:80", "8000-8002:80-81", "8000:80-81", "-1:80"]
)
def test_what_is_no_port_is_refused_by_its_name(text):
    with pytest.raises(InvalidRequest, match="--publish"):
        port_mappings([text])


def test_ports_are_shown_as_docker_shows_them():
    assert port_text(PortMapping(guest_port=80, host_port=8080)) == "127.0.0.1:8080->80/tcp"
    assert (
        port_text(PortMapping(guest_port=53, host_port=5353, host_ip="::", protocol=UDP))
        == "[::]:5353->53/udp"
    )


def test_hosts_are_a_name_and_an_address():
    entries = host_entries(["db:10.0.0.1", "six:2001:db8::1", "box:[::1]"])
    assert entries == (
        HostEntry(name="db", address="10.0.0.1"),
        HostEntry(name="six", address="2001:db8::1"),
        HostEntry(name="box", address="::1"),
    )
    with pytest.raises(InvalidRequest, match="'db' is not NAME:ADDRESS"):
        host_entries(["db"])
