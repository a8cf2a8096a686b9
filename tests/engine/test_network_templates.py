"""Pods with a network that start from a template: the interface is in it."""

from __future__ import annotations

import dataclasses

import pytest

from vc_core.defaults import Start
from vc_core.spec import TEMPLATE_MAC, GuestNetwork, NetworkError, PortMapping
from vc_core.testing.mocks import network as mock

WEB = PortMapping(guest_port=80, host_port=8080)


@pytest.fixture
def config(config):
    return dataclasses.replace(config, use=dataclasses.replace(config.use, network="mock"))


async def test_a_clone_has_its_interface_from_the_template_and_on_its_own_tap(runtime, world):
    for name in ("a", "b"):
        await (await runtime.create(name, start=Start.TEMPLATE)).start()
    assert world.faults.calls.count("vm_plug") == 1, "only the template's was plugged"
    in_template, *own = [setup.networks[0] for setup in world.set_ups]
    assert in_template == GuestNetwork(mac=TEMPLATE_MAC, mtu=own[0].mtu, addresses=())
    for name, guest in zip(("a", "b"), own, strict=True):
        (nic,) = world.machines[name].devices.values()
        assert world.machines[name].is_clone
        assert len(world.machines[name].descriptors) == 1
        assert nic.mac == guest.mac != TEMPLATE_MAC
        assert guest.restored_mac == TEMPLATE_MAC, "the guest knows the interface by that"
        assert guest.addresses, "the template has none, as others may be on the clone's link"


async def test_guests_alone_on_their_links_are_configured_in_the_template(
    runtime, world, monkeypatch
):
    monkeypatch.setattr(mock, "_MAC", TEMPLATE_MAC)
    for name in ("a", "b"):
        await (await runtime.create(name, start=Start.TEMPLATE)).start()
    in_template, *own = [setup.networks for setup in world.set_ups]
    assert in_template[0].addresses
    assert own == [in_template, in_template], "a clone has nothing to do"


async def test_a_template_with_addresses_serves_only_guests_alone_on_their_links(
    runtime, world, monkeypatch
):
    await (await runtime.create("a", start=Start.TEMPLATE)).start()
    with monkeypatch.context() as patched:
        patched.setattr(mock, "_MAC", TEMPLATE_MAC)
        await (await runtime.create("b", start=Start.TEMPLATE)).start()
    await (await runtime.create("c", start=Start.TEMPLATE)).start()
    silent, _, configured, *_ = [setup.networks[0] for setup in world.set_ups]
    assert not silent.addresses
    assert configured.addresses
    assert len(await runtime.templates.list()) == 2


async def test_pods_without_a_network_have_a_template_without_an_interface(runtime, world):
    for name, network in (("a", "public"), ("b", "none"), ("c", "none")):
        await (await runtime.create(name, start=Start.TEMPLATE, network=network)).start()
    assert [len(world.machines[name].devices) for name in ("a", "b", "c")] == [1, 0, 0]
    templates = await runtime.templates.list()
    assert sorted(len(template.nics) for template in templates) == [0, 1]


async def test_a_network_that_fails_is_no_reason_to_boot(runtime, world):
    await (await runtime.create("a", ports=(WEB,), start=Start.TEMPLATE)).start()
    booted = world.faults.calls.count("vm_start")
    with pytest.raises(NetworkError, match="port 8080 is taken"):
        await (await runtime.create("b", ports=(WEB,), start=Start.TEMPLATE)).start()
    assert world.faults.calls.count("vm_start") == booted
