"""Rules and rates of networks, as they are written."""

from __future__ import annotations

import pytest

from vc_core.spec import InvalidRequest, NetworkPolicy, NetworkRule, PortProtocol

TCP, UDP = PortProtocol.TCP, PortProtocol.UDP


@pytest.mark.parametrize(
    ("text", "target", "ports", "protocol"),
    [
        ("good.test", "good.test", (0, 0), None),
        ("GOOD.test.:443", "good.test", (443, 443), None),
        ("*.deb.test", "*.deb.test", (0, 0), None),
        ("198.51.100.0/24:80/tcp", "198.51.100.0/24", (80, 80), TCP),
        ("198.51.100.7/32", "198.51.100.7", (0, 0), None),
        ("[2001:db8::1]:53/udp", "2001:db8::1", (53, 53), UDP),
        ("2001:db8::/32", "2001:db8::/32", (0, 0), None),
        ("[2001:db8::/32]/udp", "2001:db8::/32", (0, 0), UDP),
        ("a.test:8000-8010", "a.test", (8000, 8010), None),
    ],
)
def test_a_rule_is_a_target_ports_and_a_protocol(text, target, ports, protocol):
    rule = NetworkRule.of(text)
    assert (rule.target, rule.protocol) == (target, protocol)
    assert (rule.first_port, rule.last_port) == ports
    assert NetworkRule.of(str(rule)) == rule


@pytest.mark.parametrize(
    "text",
    [
        *("", "*", "*.", "a.*.test", "a..test", "-a.test", "a b", "bücher.test", "a.test:", "a:0"),
        *("a:65536", "a:9-3", "a/sctp", "1.2.3", "1.2.3.4/33", "10.0.0.1/8", "[::1", "::1:443:"),
        *("1.2.3.4;accept", 'a"b', "a\n", f"{'a' * 64}.test", ".".join(["a" * 60] * 5)),
    ],
)
def test_other_text_is_refused_in_one_line(text):
    with pytest.raises(InvalidRequest, match="is no rule of a network") as caught:
        NetworkRule.of(text)
    assert "\n" not in str(caught.value)


def test_a_wildcard_covers_the_names_below_it():
    rule = NetworkRule.of("*.deb.test")
    assert rule.covers("a.deb.test")
    assert rule.covers("a.b.deb.test")
    assert not any(map(rule.covers, ("deb.test", ".deb.test", "adeb.test", "deb.test.evil")))


@pytest.mark.parametrize(
    ("text", "bits"), [("", 0), ("10mbit", 10**7), ("8kbit", 8000), ("1Gbit", 10**9)]
)
def test_a_rate_is_bits_per_second(text, bits):
    assert NetworkPolicy.of(rate_in=text).bits_in == bits


@pytest.mark.parametrize("text", ["10", "0mbit", "10mb", "-1mbit", "1.5mbit", "2000gbit"])
def test_what_is_no_rate_is_refused(text):
    with pytest.raises(InvalidRequest, match="rate"):
        NetworkPolicy.of(rate_out=text)
