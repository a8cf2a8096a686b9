"""Pods with a network that start from a template: the interface is in it."""

from __future__ import annotations

import asyncio
import contextlib
import os
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from msgspec import structs

from vc_core.defaults import Start
from vc_core.engine.state.states import State
from vc_core.spec import (
    TEMPLATE_MAC,
    GuestNetwork,
    NetworkError,
    OperationError,
    PluginContractError,
    PodRef,
    PortMapping,
    around,
    hookimpl,
)
from vc_core.testing.mocks import MockNetwork, mock_network
from vc_core.testing.mocks import network as mock

STEPS = 150  # more than any of the sequences has
WEB = PortMapping(guest_port=80, host_port=8080)


@pytest.fixture
def config(config):
    return structs.replace(config, use=structs.replace(config.use, network="mock"))


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
    started = world.faults.calls.count("vm_start")
    with pytest.raises(NetworkError, match="port 8080 is taken"):
        await (await runtime.create("b", ports=(WEB,), start=Start.TEMPLATE)).start()
    assert world.faults.calls.count("vm_start") == started + 1, "only the clone"
    assert list(world.machines) == list(world.networks) == ["a"]


@pytest.fixture
async def late(open_runtime, world, config):
    """A function that starts the pods "a" and "b" from a template. The network of "b" is connected
    by `finish`, which is called when its machine runs.
    """
    is_running = asyncio.Event()

    class Watch:
        @around
        @asynccontextmanager
        async def agent_connect(self, pod: PodRef):
            yield
            if pod.id == "b":
                is_running.set()

    async def start(finish):
        class Late(mock_network(world)):
            @hookimpl
            async def network_connect(self, pod, request):
                if pod.id != "b":
                    return await MockNetwork.network_connect(self, pod, request)
                await is_running.wait()
                assert "b" in world.machines
                return await finish(self, pod, request)

        watched = structs.replace(config, use=structs.replace(config.use, observers=["w"]))
        extra = {("network", "mock"): Late, ("observer", "w"): Watch}
        async with open_runtime(watched, extra=extra) as runtime:
            for name in ("a", "b"):
                pod = await runtime.create(name, start=Start.TEMPLATE)
                await pod.start()

    return start


async def test_the_machine_runs_while_the_network_is_connected(late, world):
    before = _descriptors()
    await late(MockNetwork.network_connect)
    assert sorted(world.networks) == ["a", "b"]
    assert [one.descriptors for one in world.machines.values()], "each has its tap"
    kept = sum(len(one.descriptors) for one in world.machines.values())
    assert _descriptors() <= before + kept, "the engine's own are closed"


async def test_a_network_that_fails_later_leaves_no_machine(late, world):
    async def fail(self, pod, request):
        raise NetworkError("the cable is broken")

    before = _descriptors()
    with pytest.raises(NetworkError, match="the cable is broken"):
        await late(fail)
    assert list(world.machines) == list(world.networks) == ["a"]
    assert _descriptors() <= before + len(world.machines["a"].descriptors)


async def test_a_network_on_other_taps_than_prepared_is_refused(late, world):
    async def connect_anew(self, pod, request):
        self._prepared.clear()
        return await MockNetwork.network_connect(self, pod, request)

    before = _descriptors()
    with pytest.raises(PluginContractError, match="other taps than network_prepare"):
        await late(connect_anew)
    assert list(world.machines) == list(world.networks) == ["a"]
    assert _descriptors() <= before + len(world.machines["a"].descriptors)


async def test_an_interface_that_was_not_prepared_is_plugged(late, world):
    async def connect_two(self, pod, request):
        network = await MockNetwork.network_connect(self, pod, request)
        (one,) = network.interfaces
        nic = structs.replace(one.nic, id="nic1", mac="02:00:00:00:00:03", descriptor=_null())
        guest = structs.replace(one.guest, mac=nic.mac)
        second = structs.replace(one, nic=nic, guest=guest)
        return structs.replace(network, interfaces=(one, second))

    await late(connect_two)
    assert len(world.machines["b"].devices) == 2
    first, second = world.set_ups[-1].networks
    assert (first.restored_mac, second.restored_mac) == (TEMPLATE_MAC, "")


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("is_deadly", [False, True])
async def test_a_fault_at_any_step_of_a_clone_leaves_no_network(
    open_runtime, world, after, is_deadly
):
    async with open_runtime() as runtime:
        await runtime.delete((await _started(runtime, "first")).id, force=True)  # the template
    seen = set()
    for step in range(1, STEPS):
        async with open_runtime() as dying:
            pod = await dying.create("p", start=Start.TEMPLATE)
            first = len(world.faults.calls)
            world.faults.at, world.faults.is_after = first + step, after
            world.faults.is_deadly = is_deadly
            with contextlib.suppress(OperationError):
                await pod.start()
            was_hit = len(world.faults.calls) > world.faults.at
            if was_hit:
                seen.add(world.faults.calls[first + step])
            world.faults.at, world.faults.is_deadly = -1, False
        if is_deadly:
            world.connections = 0  # which end with the process
        async with open_runtime() as runtime:
            pod = await runtime.get("p")
            await pod.refresh()
            if was_hit and (await pod.status()).state is not State.RUNNING:
                assert "p" not in world.machines, step
                assert "p" not in world.networks, step
            await pod.delete(force=True)
            assert (world.networks, world.residue()) == ({}, []), step
        if not was_hit:
            break
    assert {"network_prepare", "network_connect", "vm_start", "agent_set_up_pod"} <= seen
    assert step < STEPS


async def _started(runtime, name):
    pod = await runtime.create(name, start=Start.TEMPLATE)
    await pod.start()
    return pod


def _null() -> int:
    return os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)


def _descriptors() -> int:
    return len([*Path("/proc/self/fd").iterdir()])
