"""Pods with a network: what they remember, get and are refused, and what is left of them."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from msgspec import structs

from tests.engine.specs import container
from vc_core.driver_kit import HostProcess, process_namespace
from vc_core.engine.state.states import State
from vc_core.spec import (
    Capability,
    DenialReason,
    Dns,
    InvalidRequest,
    NetworkDenial,
    NetworkError,
    NetworkPolicy,
    NetworkRule,
    OperationError,
    PluginNotFound,
    PodOptions,
    PortMapping,
    PortProtocol,
    Reach,
    Record,
    hookimpl,
)
from vc_core.testing.mocks import MockNetwork, mock_network

WEB = PortMapping(guest_port=80, host_port=8080)


@pytest.fixture
def config(config):
    return structs.replace(config, use=structs.replace(config.use, network="mock"))


def _families(status):
    return [choice.family for choice in status.config.plugins]


async def test_a_pod_remembers_its_network_and_publishes_its_ports(runtime, world):
    pod = await runtime.create(
        "p",
        network="full",
        ports=(WEB, PortMapping(guest_port=53, host_port=0, host_ip="::1", protocol="udp")),
    )
    await pod.start()
    status = await pod.status()
    assert status.config.network.reach is Reach.FULL
    assert _families(status).count("network") == 1
    assert status.ports == (
        WEB,
        PortMapping(guest_port=53, host_port=40_000, host_ip="::1", protocol=PortProtocol.UDP),
    )
    assert await pod.ports() == status.ports
    assert status.is_connected
    assert list(world.networks) == ["p"]
    await pod.stop()
    assert (await pod.status()).ports == ()
    assert world.networks == {}
    await pod.start()
    assert (await pod.ports())[0] == WEB
    await pod.delete()
    assert (world.networks, world.residue()) == ({}, [])


async def test_the_machine_gets_the_tap_and_the_guest_its_addresses(runtime, world):
    pod = await runtime.create("p")
    before = len([*Path("/proc/self/fd").iterdir()])
    await pod.start()
    kept = len(world.machines["p"].descriptors)
    after = len([*Path("/proc/self/fd").iterdir()])
    assert after <= before + kept, "the engine's descriptor of the tap is closed"
    (nic,) = world.machines["p"].devices.values()
    (guest,) = world.set_ups[-1].networks
    assert nic.mac == guest.mac
    assert guest.addresses == ("192.0.2.2/32",)


@pytest.mark.parametrize(
    ("own", "servers"), [((), ("192.0.2.53",)), (("10.0.0.1",), ("10.0.0.1",))]
)
async def test_names_are_looked_up_where_the_network_says_unless_the_pod_does(
    runtime, world, own, servers
):
    pod = await runtime.create("p", options=PodOptions(dns=Dns(servers=own)))
    await pod.create_container(container())
    await pod.start()
    assert world.set_ups[-1].options.dns.servers == servers
    assert world.machines["p"].containers["c1"].made.pod.dns.servers == servers


async def test_a_pod_can_do_without_the_configured_network(runtime, world):
    pod = await runtime.create("p", network="none")
    await pod.start()
    assert "network" not in _families(await pod.status())
    assert world.set_ups[-1].networks == ()
    assert world.networks == {}


async def test_the_configured_network_is_public(runtime):
    status = await (await runtime.create("p")).status()
    assert status.config.network.reach is Reach.PUBLIC


async def test_without_a_configured_network_one_can_be_asked_for(open_runtime, config):
    use = structs.replace(config.use, network="none")
    async with open_runtime(structs.replace(config, use=use)) as runtime:
        assert (await (await runtime.create("p")).status()).config.network is None
        status = await (await runtime.create("q", network="public")).status()
        assert status.config.plugins[-1].name == "pasta"


@pytest.mark.parametrize(
    ("configured", "network", "plugin", "name"),
    [
        ("none", "ns:/run/netns/x", "given", "/run/netns/x"),
        ("mock", "ns:/run/netns/x", "given", "/run/netns/x"),
        ("mock", "web", "mock", "web"),
        ("mock", "full", "mock", ""),
    ],
)
async def test_a_network_of_a_name_is_the_plugins(
    open_runtime, config, configured, network, plugin, name
):
    use = structs.replace(config.use, network=configured)
    async with open_runtime(structs.replace(config, use=use)) as runtime:
        found = (await (await runtime.create("p", network=network)).status()).config
        assert (found.plugins[-1].name, found.network.name) == (plugin, name)


@pytest.fixture
def sleeper():
    with subprocess.Popen(["sleep", "1000"]) as process:
        yield process
        process.kill()


async def test_which_namespace_of_a_process_was_named_is_recorded(runtime, sleeper):
    path = f"/proc/{sleeper.pid}/ns/net"
    found = (await (await runtime.create("p", network=f"ns:{path}")).status()).config.network
    assert found.namespace == process_namespace(path, Path(path).stat())
    assert found.namespace.startswith(f"{HostProcess.of(sleeper.pid).start_ticks}:")
    sleeper.kill()
    sleeper.wait()
    with pytest.raises(InvalidRequest, match=f"{path} is no network namespace: No such file"):
        await runtime.create("q", network=f"ns:{path}")
    other = (await (await runtime.create("r", network="ns:/run/netns/x")).status()).config.network
    assert other.namespace == "", "its owner may make it anew"


async def test_a_network_plugin_that_is_not_there_is_named(open_runtime, config):
    use = structs.replace(config.use, network="nosuch")
    with pytest.raises(PluginNotFound, match="no network plugin 'nosuch'"):
        open_runtime(structs.replace(config, use=use))


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (
            {"network": "pub lic"},
            "'pub lic' is no network; choose one of none, public, full, the name of a CNI",
        ),
        (
            {"network": "ns:here"},
            "'ns:here' names no namespace; give ns:/PATH",
        ),
        ({"network": "none", "ports": (WEB,)}, "without a network publishes no ports"),
        ({"ports": (PortMapping(guest_port=0, host_port=1),)}, "port 1:0 is out of range"),
        (
            {"ports": (PortMapping(guest_port=80, host_port=70_000),)},
            "port 70000:80 is out of range",
        ),
        (
            {"ports": (PortMapping(guest_port=80, host_port=8080, host_ip="localhost"),)},
            "'localhost' is no IPv4 or IPv6",
        ),
        ({"ports": (PortMapping(guest_port=80, host_ip="::1%a\nb"),)}, "has a zone"),
        ({"options": PodOptions(dns=Dns(servers=("::1%a\nb",)))}, "is not an IP address"),
        (
            {"ports": (WEB, PortMapping(guest_port=81, host_port=8080))},
            "port 8080/tcp of 127.0.0.1 is published twice",
        ),
    ],
)
async def test_what_makes_no_sense_is_refused(runtime, world, words, told):
    with pytest.raises(InvalidRequest, match=told):
        await runtime.create("p", **words)
    assert world.records == {}


ALLOWED = NetworkPolicy.of(allow=["*.good.test:443", "198.51.100.0/24"], rate_in="10mbit")


async def test_a_pod_remembers_its_policy(runtime):
    pod = await runtime.create(
        "p", policy=ALLOWED, options=PodOptions(dns=Dns(servers=("1.1.1.1",)))
    )
    wanted = (await pod.status()).config.network
    assert (wanted.policy, wanted.name_servers) == (ALLOWED, ("1.1.1.1",))


async def test_where_names_are_ruled_the_network_asks_the_pods_name_servers(runtime, world):
    pod = await runtime.create(
        "p", policy=ALLOWED, options=PodOptions(dns=Dns(servers=("1.1.1.1",)))
    )
    await pod.start()
    assert world.set_ups[-1].options.dns.servers == ("192.0.2.53",)


async def test_a_limit_of_one_thing_keeps_the_configured_limits_of_others(open_runtime, config):
    defaults = structs.replace(config.pod, allow=("good.test:443",), rate_out="1mbit")
    async with open_runtime(structs.replace(config, pod=defaults)) as runtime:
        pod = await runtime.create("p", policy=NetworkPolicy.of(rate_out="2mbit"))
        policy = (await pod.status()).config.network.policy
    assert policy == NetworkPolicy.of(allow=["good.test:443"], rate_out="2mbit")


@pytest.mark.parametrize(
    ("network", "allow", "deny", "told"),
    [
        ("none", ["good.test"], [], "has nothing to allow, deny or limit"),
        ("public", ["10.1.2.0/24"], [], "10.0.0.0/8 is not public; use the network full"),
        ("public", ["[fd00::1]:80"], [], "fc00::/7 is not public"),
        ("public", [], ["evil.test"], "evil.test cannot be denied alone"),
        ("public", ["*.good.test"], ["evil.test"], "evil.test cannot be denied alone"),
        ("public", ["*.good.test", "0.0.0.0/0"], ["a.good.test"], "cannot be denied alone"),
        ("public", ["*.good.test"], ["a.good.test:80"], "denied with all of its ports"),
        ("public", [f"198.51.100.1:{port}" for port in range(1, 202)], [], "201 rules are too"),
    ],
)
async def test_a_policy_that_would_not_hold_is_refused(runtime, network, allow, deny, told):
    with pytest.raises(InvalidRequest, match=told):
        await runtime.create("p", network=network, policy=NetworkPolicy.of(allow, deny))


async def test_a_rule_that_was_not_parsed_is_checked(runtime):
    forged = NetworkRule(target="1.2.3.4 accept; flush ruleset")
    with pytest.raises(InvalidRequest, match="is no rule"):
        await runtime.create("p", policy=NetworkPolicy(allow=(forged,)))
    with pytest.raises(InvalidRequest, match="out of range"):
        await runtime.create("p", policy=NetworkPolicy(bits_in=1))


DENIED = NetworkDenial(reason=DenialReason.ADDRESS, target="192.0.2.1", protocol="tcp", port=443)


async def test_denials_are_told_once_each_and_at_the_latest_at_the_end(runtime, world):
    pod = await runtime.create("p")
    await pod.start()
    connection = world.networks["p"]
    connection.denials = (DENIED,)
    for _ in range(2):
        assert await pod.network_denials() == (DENIED,)
    spoofed = NetworkDenial(reason=DenialReason.SPOOFED, count=7)
    connection.denials = (spoofed, structs.replace(DENIED, count=9))
    await pod.stop()
    told = [event.reason async for event in runtime.events() if event.event == "pod_denied"]
    assert told == ["address tcp 192.0.2.1:443", "spoofed"]
    assert await pod.network_denials() == ()


async def test_a_guest_that_invents_destinations_makes_no_more_than_100_events(runtime, world):
    pod = await runtime.create("p")
    await pod.start()
    for first in (0, 150):
        world.networks["p"].denials = tuple(
            structs.replace(DENIED, port=port) for port in range(first + 1, first + 150)
        )
        await pod.network_denials()
    assert len([1 async for event in runtime.events() if event.event == "pod_denied"]) == 100


@pytest.mark.parametrize(
    ("lacking", "told"),
    [
        (Capability.NETWORK_POLICY, "network plugin mock does not enforce the network public"),
        (Capability.PORTS, "mock publishes no ports"),
        (Capability.RATES, "mock limits no rates"),
    ],
)
async def test_what_the_plugin_cannot_do_is_refused_before_anything_starts(
    open_runtime, world, lacking, told
):
    class Lesser(mock_network(world)):
        @hookimpl
        async def network_capabilities(self, pod):
            return await MockNetwork.network_capabilities(self, pod) - {lacking}

    async with open_runtime(extra={("network", "mock"): Lesser}) as runtime:
        with pytest.raises(InvalidRequest, match=told):
            await runtime.create("p", ports=(WEB,), policy=NetworkPolicy.of(rate_in="1mbit"))
        assert world.records == {}


async def test_a_hypervisor_without_interfaces_is_refused(runtime, world):
    world.capabilities = frozenset({Capability.UNIX_CHANNEL})
    with pytest.raises(InvalidRequest, match="hypervisor plugin mock plugs no network"):
        await runtime.create("p", start="cold")


async def test_a_taken_port_refuses_the_start_and_leaves_nothing(runtime, world):
    await (await runtime.create("first", ports=(WEB,))).start()
    second = await runtime.create("second", ports=(WEB,))
    with pytest.raises(NetworkError, match="8080"):
        await second.start()
    assert (await second.status()).state is State.READY
    assert list(world.networks) == ["first"]
    assert list(world.machines) == ["first"]


async def test_a_network_that_has_died_is_told(runtime, world):
    pod = await runtime.create("p")
    await pod.start()
    world.networks["p"].is_alive = False
    assert not (await pod.status()).is_connected
    await pod.stop()
    await pod.start()
    assert (await pod.status()).is_connected


async def test_a_machine_that_ends_by_itself_takes_its_network_along(runtime, world):
    pod = await runtime.create("p")
    await pod.start()
    world.machines["p"].end("somebody pulled the plug")
    await pod.refresh()
    assert world.networks == {}


async def test_a_reboot_of_the_host_leaves_no_network(runtime, open_runtime, world):
    await (await runtime.create("p", ports=(WEB,))).start()
    world.reboot()
    async with open_runtime() as second:
        pod = await second.get("p")
        assert (await pod.status()).ports == ()
        await pod.start()
        assert await pod.ports() == (WEB,)
        await pod.delete()


@pytest.mark.parametrize("record", [Record.POD_CONFIG, Record.POD_STATE])
async def test_a_damaged_pod_takes_its_network_along(runtime, world, record):
    await (await runtime.create("p")).start()
    world.records["p"][("", record)] = "garbage"
    await runtime.delete("p", force=True)
    assert (world.networks, world.records) == ({}, {})


async def test_a_network_that_cannot_be_removed_can_be_removed_later(runtime, world):
    pod = await runtime.create("p")
    await pod.start()
    world.faults.operation = "network_disconnect"
    with pytest.raises(OperationError):
        await pod.stop()
    assert list(world.networks) == ["p"]
    world.faults.operation = ""
    await pod.delete()
    assert world.residue() == []
