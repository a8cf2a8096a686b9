"""The networks of pods that start from a saved one."""

from __future__ import annotations

import pytest
from msgspec import structs

from vc_core.spec import (
    Capability,
    InvalidRequest,
    OperationError,
    PortMapping,
    Reach,
    hookimpl,
)
from vc_core.testing.mocks import MockNetwork, mock_network

WEB = PortMapping(guest_port=80, host_port=8080)


@pytest.fixture
def config(config):
    return structs.replace(config, use=structs.replace(config.use, network="mock"))


async def test_children_get_networks_and_ports_of_their_own(runtime, world):
    pod = await runtime.create("p", ports=(WEB,))
    await pod.start()
    (mac,) = [one.mac for one in world.set_ups[-1].networks]
    first, second = await pod.fork(2, ports=[PortMapping(guest_port=80)])
    ports = [(await one.ports())[0] for one in (pod, first, second)]
    assert len({port.host_port for port in ports}) == 3
    assert {port.guest_port for port in ports} == {80}
    assert sorted(world.networks) == sorted([pod.id, first.id, second.id])
    for set_up in world.set_ups[-2:]:
        assert [one.restored_mac for one in set_up.networks] == [mac]
    await pod.snapshot("s")
    for one in (pod, first, second):
        await one.delete(force=True)
    restored = await runtime.restore("s", "r", ports=[WEB])
    assert await restored.ports() == (WEB,)
    alone = await runtime.restore("s", "q")
    assert await alone.ports() == ()
    for one in (restored, alone):
        await one.delete(force=True)
    assert (world.networks, world.machines) == ({}, {})


async def test_children_publish_the_parents_ports_on_free_ones(runtime, world):
    pod = await runtime.create("p", ports=(WEB,))
    await pod.start()
    children = await pod.fork(2)
    ports = [(await one.ports())[0] for one in (pod, *children)]
    assert len({port.host_port for port in ports}) == 3
    assert {port.guest_port for port in ports} == {80}
    (silent,) = await pod.fork(1, ports=[])
    assert await silent.ports() == ()


async def test_children_get_another_network_than_the_parent(runtime, world):
    pod = await runtime.create("p", network="public", ports=(WEB,))
    await pod.start()
    (other,) = await pod.fork(1, network="full")
    config = (await other.status()).config
    assert (config.network.reach, config.network.ports) == (
        Reach.FULL,
        (PortMapping(guest_port=80),),
    )
    with pytest.raises(InvalidRequest, match="has a network interface; give the new pod a network"):
        await pod.fork(1, network="none")
    await pod.snapshot("s")
    restored = await runtime.restore("s", network="full")
    assert (await restored.status()).config.network.reach is Reach.FULL


async def test_what_the_plugin_cannot_do_is_refused_before_a_parent_is_saved(open_runtime, world):
    class Lesser(mock_network(world)):
        @hookimpl
        async def network_capabilities(self, pod):
            able = await MockNetwork.network_capabilities(self, pod)
            return able - {Capability.NETWORK_POLICY}

    async with open_runtime(extra={("network", "mock"): Lesser}) as runtime:
        pod = await runtime.create("p", network="full")
        await pod.start()
        world.faults.calls.clear()
        with pytest.raises(InvalidRequest, match="mock does not enforce the network public"):
            await pod.fork(1, network="public")
        assert "vm_checkpoint" not in world.faults.calls
        assert list(world.machines) == ["p"]


async def test_a_fork_that_fails_leaves_no_network(runtime, world):
    pod = await runtime.create("p")
    await pod.start()
    for operation in ("network_connect", "vm_start", "agent_set_up_pod"):
        world.faults.operation = operation
        with pytest.raises(OperationError):
            await pod.fork(1)
        assert list(world.networks) == ["p"], operation


async def test_one_port_of_the_host_is_not_for_two_children(runtime, world):
    pod = await runtime.create("p")
    await pod.start()
    with pytest.raises(InvalidRequest, match="port 8080 cannot be published by 2 pods"):
        await pod.fork(2, ports=[WEB])
    bare = await runtime.create("q", network="none")
    await bare.start()
    with pytest.raises(InvalidRequest, match="has no network interface: it gets no network"):
        await bare.fork(1, ports=[WEB])
    assert list(world.networks) == ["p"]
