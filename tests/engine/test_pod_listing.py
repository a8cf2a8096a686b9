"""Lists tell by the records: nothing is asked, no lock waited for, no process looked at twice."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest
from msgspec import structs

from tests.engine.specs import container
from vc_core.driver_kit import HostProcess
from vc_core.engine.api import pod_list
from vc_core.engine.api.pod_listing import Listing
from vc_core.engine.state.records import Store
from vc_core.engine.state.states import State
from vc_core.spec import PluginNotFound, PodDamaged, Record, hookimpl
from vc_core.testing.mocks import mock_storage


async def started(runtime, name: str, process: HostProcess | None):
    """A pod with a container, whose machine has a process of this host."""
    pod = await runtime.create(name)
    await pod.create_container(container())
    await pod.start()
    store = Store(runtime.hooks, name)
    await store.put_pod_state(structs.replace(await store.pod_state(), process=process))
    await pod.close()


async def test_a_list_asks_nobody_and_waits_for_no_lock(runtime, world, monkeypatch):
    for name in ("a", "b"):
        await started(runtime, name, HostProcess.this())
    await runtime.create("c")
    looks = Counter()
    is_alive = HostProcess.is_alive

    def counted(self):
        looks[self] += 1
        return is_alive(self)

    monkeypatch.setattr(HostProcess, "is_alive", counted)
    held = await runtime.hooks.storage_lock(pod_id="a", exclusive=True, timeout_s=1)
    world.faults.calls.clear()
    async with asyncio.timeout(30):
        listing = await runtime.list()
    await held.release()
    found = [(one.id, one.state, one.pid, one.unanswered) for one in listing.pods]
    pid = HostProcess.this().pid
    assert found == [
        ("a", State.RUNNING, pid, ""),
        ("b", State.RUNNING, pid, ""),
        ("c", State.READY, 0, ""),
    ]
    assert [one.state for one in listing.pods[0].containers] == [State.RUNNING]
    assert {call.partition("_")[0] for call in world.faults.calls} == {"storage"}
    assert "storage_lock" not in world.faults.calls
    assert looks == {HostProcess.this(): 2}, "one look for each pod"


async def test_guests_are_asked_only_for_containers_that_run(runtime, world):
    await started(runtime, "a", HostProcess.this())
    await (await runtime.create("b")).start()
    store = Store(runtime.hooks, "b")
    await store.put_pod_state(structs.replace(await store.pod_state(), process=HostProcess.this()))
    await runtime.create("c")
    world.faults.calls.clear()
    listing = await runtime.list(ask_guests=True)
    assert [one.state for one in listing.pods] == [State.RUNNING, State.RUNNING, State.READY]
    assert world.faults.calls.count("agent_list_containers") == 1


async def test_a_machine_that_has_ended_is_asked_for_the_reason(runtime, world):
    gone = HostProcess(HostProcess.this().pid, 1)  # another start time: the pid was reused
    await started(runtime, "p", gone)
    world.machines["p"].end("somebody pulled the plug")
    (found,) = (await runtime.list()).pods
    assert (found.state, found.containers[0].state) == (State.STOPPED, State.STOPPED)
    assert "pulled the plug" in found.reason


async def test_a_pod_that_a_killed_call_was_saving_goes_on_and_is_told_so(runtime, world):
    await started(runtime, "p", HostProcess.this())
    store = Store(runtime.hooks, "p")
    await store.put_pod_state(structs.replace(await store.pod_state(), is_saving=True))
    (found,) = (await runtime.list()).pods
    assert found.state is State.RUNNING
    assert not (await store.pod_state()).is_saving


async def test_a_damaged_record_of_a_machine_is_told(runtime, world):
    await started(runtime, "p", HostProcess.this())
    world.records["p"][("", "hypervisor")] = "garbage"
    (damaged,) = (await runtime.list()).damaged
    assert "mock:p//hypervisor is damaged" in damaged.reason
    with pytest.raises(PodDamaged):
        await (await runtime.get("p")).status()


async def test_a_configuration_that_cannot_ask_is_an_error_and_damages_no_pod(
    runtime, config, monkeypatch
):
    monkeypatch.setattr(pod_list, "Catalog", lambda: runtime.catalog)
    wrong = structs.replace(config, use=structs.replace(config.use, hypervisor="nobody"))
    await runtime.create("a")
    assert [one.id for one in (await pod_list.list_pods(wrong)).pods] == ["a"], "none is asked"
    await started(runtime, "b", None)
    with pytest.raises(PluginNotFound, match="nobody"):
        await pod_list.list_pods(wrong)
    listing = await pod_list.list_pods(config)
    assert [one.id for one in listing.pods] == ["a", "b"]


async def test_a_pod_that_is_being_deleted_is_not_told_as_one_before_a_reboot(
    runtime, world, open_runtime
):
    class MeetsADelete(mock_storage(world)):
        @hookimpl
        async def storage_get(self, pod_id, container_id, record):
            if record is Record.POD_STATE:
                del world.records[pod_id][container_id, record]
            return await super().storage_get(pod_id, container_id, record)

        @hookimpl
        async def storage_lock(self, pod_id, exclusive, timeout_s):
            del world.records[pod_id]
            return await super().storage_lock(pod_id, exclusive, timeout_s)

    await runtime.create("p")
    async with open_runtime(extra={("storage", "mock"): MeetsADelete}) as other:
        assert await other.list() == Listing(())


async def test_a_pod_without_a_state_whose_lock_is_held_has_no_reason(runtime, world):
    await runtime.create("p")
    held = await runtime.hooks.storage_lock(pod_id="p", exclusive=True, timeout_s=1)
    del world.records["p"]["", Record.POD_STATE]
    (found,) = (await runtime.list()).pods
    await held.release()
    assert (found.state, found.reason) == (State.STOPPED, "")
    assert found.unanswered


async def test_a_list_after_a_reboot_tells_it_of_each_pod(runtime, world, open_runtime):
    names = [f"p{number:02}" for number in range(20)]
    for name in names:
        await (await runtime.create(name)).create_container(container())
    world.reboot()
    async with open_runtime() as after:
        listing = await after.list()
    assert [one.id for one in listing.pods] == names
    told = {(one.state, one.reason, one.containers[0].state) for one in listing.pods}
    assert told == {(State.STOPPED, "the host was rebooted", State.STOPPED)}
