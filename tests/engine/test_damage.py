"""What is damaged can be seen and removed; who does not answer hides nobody else."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses

import pytest

from tests.engine.specs import container
from vc_core.engine.states import State
from vc_core.spec import NotFound, PodDamaged, PodRef, Record, VmPhase

DAMAGES = ("", "garbage", "{}", "[]", '{"schema": 99, "data": {}}', '{"schema": 2, "data": {"state": "dancing"}}')
RECORDS = [("", Record.POD_CONFIG), ("", Record.POD_STATE), ("", Record.HYPERVISOR)]
RECORDS += [("c1", Record.CONTAINER_STATE), ("c1", Record.CONTAINER_CONFIG)]


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("key", RECORDS, ids="-".join)
async def test_a_pod_is_removed_whatever_of_it_is_damaged(runtime, open_runtime, world, key, damage, caplog):
    pod = await runtime.create("p")
    await pod.create_container(container())
    await pod.start()
    await (await runtime.create("good")).start()
    world.records["p"][key] = damage
    place = f"mock:p/{key[0]}/{key[1]}"
    async with open_runtime() as other:
        listing = await other.list()
        assert [one.id for one in listing.pods] == ["good"]
        assert [(one.id, place in one.reason) for one in listing.damaged] == [("p", True)]
        with pytest.raises(PodDamaged, match=f"{place} .*; 'vc pod delete --force p' ends its machine and removes it"):
            await (await other.get("p")).status()
        with pytest.raises(PodDamaged):
            await other.delete("p")
        assert world.machines["p"].phase is VmPhase.RUNNING, "only force removes it"
        await other.delete("p", force=True)
        told = any(place in line for line in caplog.messages)
        assert told or key[1] is Record.CONTAINER_CONFIG, "it says what it could not read and would have needed"
        assert set(world.machines) == {"good"}
        assert set(world.records) == {"good"}
        with pytest.raises(NotFound):
            await other.delete("p", force=True)
        await other.delete("good")


async def test_a_pod_is_removed_when_all_its_records_are_damaged(runtime, world):
    pod = await runtime.create("p")
    await pod.create_container(container())
    await pod.start()
    world.records["p"] = dict.fromkeys(world.records["p"], "garbage")
    await runtime.delete("p", force=True)
    assert (world.machines, world.records) == ({}, {})


async def test_a_pod_is_removed_when_a_plugin_of_it_is_gone(open_runtime, world, config):
    async with open_runtime() as first:
        await (await first.create("p")).start()
    world.records["p"][("", Record.POD_CONFIG)] = world.records["p"][("", Record.POD_CONFIG)].replace(
        '"name": "faults"', '"name": "uninstalled"'
    )
    async with open_runtime() as runtime:
        with pytest.raises(PodDamaged, match="no observer plugin 'uninstalled'"):
            await (await runtime.get("p")).stop()
        await runtime.delete("p", force=True)
    assert (world.machines, world.records) == ({}, {})


async def test_a_pod_is_removed_when_a_plugin_of_it_fails(runtime, world):
    await (await runtime.create("p")).start()
    world.faults.operation = "vm_stop"
    await runtime.delete("p", force=True)
    assert (world.machines, world.records) == ({}, {})


async def test_a_machine_of_the_pool_is_found_by_its_pod(open_runtime, config, world):
    async with open_runtime() as runtime:
        await runtime.pool.make(runtime.hooks, await runtime.wish())
        taken = await runtime.pool.take(runtime.hooks, await runtime.wish(), PodRef("p", world.run_root / "p"))
        assert taken is not None
        assert runtime.pool.homes(PodRef("p", world.run_root / "p")) == (taken[0],)
        assert runtime.pool.homes(PodRef("p", world.run_root / "another/p")) == (), "that of another store"
        await runtime.pool.give_up(taken[0])


@pytest.mark.parametrize("is_locked", [False, True])
async def test_who_does_not_answer_hides_nobody(open_runtime, config, world, is_locked):
    quick = dataclasses.replace(config, deadlines=dataclasses.replace(config.deadlines, view=0.2, default=60, lock=60))
    async with open_runtime(quick) as runtime, contextlib.AsyncExitStack() as stack:
        for name in ("a", "b"):
            pod = await runtime.create(name)
            await pod.create_container(container())
            await pod.start()
        if is_locked:
            held = await runtime.hooks.storage_lock(pod_id="a", exclusive=True, timeout_s=1)
            stack.push_async_callback(held.release)
        else:
            world.machines["a"].is_hung = True
        async with asyncio.timeout(20):
            listing = await runtime.list(ask_guests=True)
        assert [one.id for one in listing.pods] == ["a", "b"]
        told = [(one.containers[0].state, one.containers[0].unanswered) for one in listing.pods]
        assert told == [(State.RUNNING, "no answer within 0.2 s"), (State.RUNNING, "")]
        assert (await (await runtime.get("a")).status()).unanswered == "no answer within 0.2 s"
