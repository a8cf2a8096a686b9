"""Networks of `vc network create`: one set of rules for all pods, and the whole list for others."""

from __future__ import annotations

import base64
import json
import os
import subprocess

import pytest
from vc_network import netns
from vc_network.cni import own_rules
from vc_network.cni.cache import container_of
from vc_network.cni.configuration import find
from vc_network.errors import NetworkFailure

from vc_core.spec import NetworkError, NetworkPolicy, NetworkRequest, NewNetwork, PortMapping, Reach

SUBNETS = ("192.0.2.0/24", "2001:db8:9::/64")


@pytest.fixture
async def own(place):
    """The name of a network that `vc network create` has made; it is removed."""
    name = f"{place.name}-own"
    await place.plugin().network_create(wanted=NewNetwork(name=name, subnets=SUBNETS))
    yield name
    await place.plugin().network_remove(name=name)
    assert _rules() == []


def _rules() -> list[str]:
    """Our rules in this network namespace; CNI's plugins leave their common chains."""
    found: list[str] = []
    for words in (("iptables-save",), ("ip6tables-save",), ("nft", "list", "tables", "inet")):
        done = subprocess.run(words, capture_output=True, text=True, check=True)
        lines = done.stdout.splitlines()
        found += [line for line in lines if " vcb" in line or "vc_network" in line]
    return found


async def _connect(place, own, pod, **keys):
    request = NetworkRequest(reach=Reach.FULL, name=own, **keys)
    network = await place.plugin().network_connect(pod=pod, request=request)
    for one in network.interfaces:
        os.close(one.nic.descriptor)
    return network


def _called(place, own, pod):
    """The types of the plugins that were called for a pod, and the text of the list."""
    file = place.folder / f"cache/results/{own}-{container_of(pod)}-eth0"
    text = base64.b64decode(json.loads(file.read_text())["config"])
    plugins = json.loads(text)["plugins"]
    return [one["type"] for one in plugins], plugins


async def test_rules_are_the_networks_and_not_each_pods(place, own):
    one, two = place.pod("one"), place.pod("two")
    await _connect(place, own, one)
    rules = _rules()
    assert len([rule for rule in rules if "FORWARD" in rule]) == 4, rules  # of IPv4 and IPv6
    await _connect(place, own, two)
    assert _rules() == rules
    for pod in (one, two):
        kinds, plugins = _called(place, own, pod)
        assert kinds == ["bridge"]
        assert plugins[0]["ipMasq"] is False
        assert await place.plugin().network_is_connected(pod=pod)
        await place.plugin().network_disconnect(pod=pod)


async def test_what_a_pod_asks_for_is_called_for_it(place, own):
    pod = place.pod()
    port = PortMapping(guest_port=80, host_port=18081)
    await _connect(place, own, pod, ports=(port,), policy=NetworkPolicy(bits_in=10**6))
    assert _called(place, own, pod)[0] == ["bridge", "portmap", "bandwidth"]
    await place.plugin().network_disconnect(pod=pod)


async def test_other_programs_find_the_whole_list(place, own):
    network = find(place.options().config_dir, own)
    kinds = [one["type"] for one in network.plugins]
    assert kinds == ["bridge", "portmap", "firewall", "bandwidth"]
    assert network.plugins[0]["ipMasq"] is True


async def test_what_a_user_changed_in_a_list_is_called(place, own):
    network = find(place.options().config_dir, own)
    changed = json.loads(network.text)
    changed["plugins"][2]["iptablesAdminChainName"] = "ADMIN"
    changed["plugins"].append({"type": "tuning"})
    network.path.write_text(json.dumps(changed))
    pod = place.pod()
    await _connect(place, own, pod)
    assert _called(place, own, pod)[0] == ["bridge", "firewall", "tuning"]
    await place.plugin().network_disconnect(pod=pod)


async def test_rules_that_somebody_removed_are_missed_and_set_by_the_next_pod(place, own):
    pod, other = place.pod(), place.pod("other")
    await _connect(place, own, pod)
    subprocess.run(["nft", "flush", "ruleset"], check=True)
    assert not await place.plugin().network_is_connected(pod=pod)
    await _connect(place, own, other)
    assert await place.plugin().network_is_connected(pod=pod)
    for one in (pod, other):
        await place.plugin().network_disconnect(pod=one)


async def test_a_network_that_is_not_ours_gets_no_rules(place):
    network = find(place.options().config_dir, place.name)
    own_rules.apply(network)
    assert _rules() == []
    assert own_rules.are_set(network)


async def test_a_removal_that_failed_can_be_repeated(place, own, monkeypatch):
    pod = place.pod()
    await _connect(place, own, pod)
    await place.plugin().network_disconnect(pod=pod)

    def fail(*_: object, **__: object) -> str:
        raise NetworkFailure("iptables is locked")

    with monkeypatch.context() as patched:
        patched.setattr(own_rules, "run", fail)
        with pytest.raises(NetworkError, match="iptables is locked"):
            await place.plugin().network_remove(name=own)
    assert find(place.options().config_dir, own).name == own  # and the fixture removes it


async def test_a_network_without_ipv6_asks_no_filter_of_it(place, monkeypatch):
    called = []

    def note(name: str, *words: str, text: str = "") -> str:
        called.append(name)
        return netns.run(name, *words, text=text)

    monkeypatch.setattr(own_rules, "run", note)
    name = f"{place.name}-v4"
    await place.plugin().network_create(wanted=NewNetwork(name=name, subnets=SUBNETS[:1]))
    pod = place.pod()
    await _connect(place, name, pod)
    await place.plugin().network_disconnect(pod=pod)
    await place.plugin().network_remove(name=name)
    assert "iptables" in called
    assert "ip6tables" not in called
    assert _rules() == []
