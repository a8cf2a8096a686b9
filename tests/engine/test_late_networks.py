"""Running pods that get a network: what they have then, what is refused, and what is left."""

from __future__ import annotations

import contextlib

import pytest
from msgspec import structs

from tests.engine.specs import container
from vc_core.engine.state.states import State
from vc_core.spec import Capability, InvalidRequest, OperationError, StateError

STEPS = 60
FIRST = {False: 0, True: 1}  # the first step is the lock, after which nothing fails


@pytest.fixture
def config(config):
    return structs.replace(config, use=structs.replace(config.use, network="mock"))


async def _alone(runtime):
    pod = await runtime.create("p", network="none")
    await pod.create_container(container())
    await pod.start()
    return pod


def _families(config):
    return [choice.family for choice in config.plugins]


async def test_a_running_pod_gets_an_interface_which_is_gone_with_it(runtime, world):
    pod = await _alone(runtime)
    assert world.machines["p"].devices == {}
    await pod.connect("full")
    (nic,) = world.machines["p"].devices.values()
    (guest,) = world.set_ups[-1].networks
    assert nic.mac == guest.mac
    assert world.set_ups[-1].options.dns.servers == ("192.0.2.53",)
    assert world.set_ups[-1].machine_id == world.set_ups[0].machine_id
    status = await pod.status()
    assert (status.state, status.is_connected) == (State.RUNNING, True)
    assert _families(status.config).count("network") == 1
    done = len(world.set_ups)
    await pod.connect("full")
    assert len(world.set_ups) == done, "it is connected already"
    await pod.stop()
    assert world.networks == {}
    await pod.start()
    assert list(world.networks) == ["p"], "the pod remembers its network"
    await pod.delete()
    assert (world.residue(), world.records) == ([], {})


async def test_other_processes_see_the_network_at_once(open_runtime, world):
    async with open_runtime() as first, open_runtime() as second:
        pod = await _alone(first)
        other = await second.get("p")
        assert (await other.status()).is_connected
        await pod.connect("full")
        world.networks["p"].is_alive = False
        assert not (await other.status()).is_connected
        await other.delete(force=True)
    assert (world.residue(), world.records, world.networks) == ([], {}, {})


async def test_what_cannot_be_connected_is_named_and_stays_as_it_is(runtime, world):
    pod = await runtime.create("p", network="none")
    with pytest.raises(StateError):
        await pod.connect("full")
    await pod.start()
    with pytest.raises(InvalidRequest, match="none is no network"):
        await pod.connect("none")
    await pod.connect("full")
    with pytest.raises(InvalidRequest, match="pod p has another network"):
        await pod.connect("web")
    await pod.pause()
    with pytest.raises(StateError):
        await pod.connect("full")
    await pod.delete(force=True)


async def test_a_hypervisor_without_interfaces_is_named_before_anything_changes(runtime, world):
    pod = await _alone(runtime)
    before = (await pod.status()).config
    world.capabilities = frozenset({Capability.UNIX_CHANNEL})
    with pytest.raises(InvalidRequest, match="hypervisor plugin mock plugs no network"):
        await pod.connect("full")
    assert ((await pod.status()).config, world.networks) == (before, {})


@pytest.mark.parametrize("after", [False, True])
async def test_a_failed_connection_leaves_the_pod_as_it_was(open_runtime, world, after):
    async with open_runtime() as runtime:
        pod = await _alone(runtime)
        before = (await pod.status()).config
        for step in range(FIRST[after], STEPS):
            world.faults.at, world.faults.is_after = len(world.faults.calls) + step, after
            try:
                await pod.connect("full")
            except OperationError:
                pass
            else:
                break
            failed, world.faults.at = world.faults.calls[world.faults.at], -1
            told = f"step {step}: {world.faults.calls[-12:]}"
            found = await pod.status()
            assert (found.state, found.is_connected, found.config) == (
                State.RUNNING,
                True,
                before,
            ), told
            # The contract: what vm_plug refuses is not in the machine.
            left = {} if failed != "vm_plug" else world.machines["p"].devices
            assert (world.networks, world.machines["p"].devices) == ({}, left), told
        world.faults.at = -1
        assert 8 < step < STEPS
        assert list(world.networks) == ["p"]
        await pod.delete()
    assert (world.residue(), world.records) == ([], {})


@pytest.mark.parametrize("again", ["connect", "delete"])
async def test_a_caller_killed_at_any_step_leaves_a_pod_that_can_be_connected_or_deleted(
    open_runtime, world, again
):
    for step in range(STEPS):
        async with open_runtime() as doomed:
            pod = await _alone(doomed)
            world.faults.at, world.faults.is_after = len(world.faults.calls) + step, True
            world.faults.is_deadly = True
            with contextlib.suppress(OperationError):
                await pod.connect("full")
            was_hit = len(world.faults.calls) > world.faults.at
            with contextlib.suppress(OperationError):
                await doomed.close()
        world.faults.is_deadly, world.faults.at, world.connections = False, -1, 0
        world.locks.clear()
        async with open_runtime() as second:
            pod = await second.get("p")
            assert (await pod.status()).state is State.RUNNING, step
            if again == "connect":
                await pod.connect("full")
                assert list(world.machines["p"].devices) == ["nic0"], step
                assert list(world.networks) == ["p"], step
                assert world.set_ups[-1].networks, step
            await pod.delete()
        assert (world.residue(), world.records, world.networks) == ([], {}, {}), step
        if not was_hit:
            break
    assert 8 < step < STEPS
