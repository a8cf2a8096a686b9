"""What is damaged can be seen and removed; who does not answer hides nobody else."""

from __future__ import annotations

import asyncio
import contextlib
import errno

import pytest
from msgspec import structs

from tests.engine.specs import container
from vc_core.engine.state.states import State
from vc_core.spec import NotFound, PodDamaged, PodRef, Record, StorageError, VmPhase, hookimpl
from vc_core.testing.mocks import mock_storage

DAMAGES = (
    "",
    "garbage",
    "{}",
    "[]",
    '{"schema": 99, "data": {}}',
    '{"schema": 2, "data": {"state": "dancing"}}',
)
RECORDS = [("", Record.POD_CONFIG), ("", Record.POD_STATE), ("", Record.HYPERVISOR)]
RECORDS += [("c1", Record.CONTAINER_STATE), ("c1", Record.CONTAINER_CONFIG)]


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("key", RECORDS, ids="-".join)
async def test_a_pod_is_removed_whatever_of_it_is_damaged(
    runtime, open_runtime, world, key, damage, caplog
):
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
        with pytest.raises(
            PodDamaged,
            match=f"{place} .*; 'vc pod delete --force p' ends its machine and removes it",
        ):
            await (await other.get("p")).status()
        with pytest.raises(PodDamaged):
            await other.delete("p")
        assert world.machines["p"].phase is VmPhase.RUNNING, "only force removes it"
        await other.delete("p", force=True)
        told = any(place in line for line in caplog.messages)
        assert told or key[1] is Record.CONTAINER_CONFIG, (
            "it says what it could not read and would have needed"
        )
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
    world.records["p"][("", Record.POD_CONFIG)] = world.records["p"][
        ("", Record.POD_CONFIG)
    ].replace('"name": "faults"', '"name": "uninstalled"')
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
        await runtime.pool.make(runtime.hooks, await runtime.template_request())
        taken = await runtime.pool.take(
            runtime.hooks,
            await runtime.template_request(),
            PodRef(id="p", run_dir=world.run_root / "p"),
        )
        assert taken is not None
        assert runtime.pool.homes(PodRef(id="p", run_dir=world.run_root / "p")) == (taken[0],)
        assert runtime.pool.homes(PodRef(id="p", run_dir=world.run_root / "another/p")) == (), (
            "that of another store"
        )
        await runtime.pool.give_up(taken[0])


@pytest.mark.parametrize("is_locked", [False, True])
async def test_who_does_not_answer_hides_nobody(open_runtime, config, world, is_locked):
    quick = structs.replace(
        config, deadlines=structs.replace(config.deadlines, view=3, default=60, lock=60)
    )
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
        assert told == [(State.RUNNING, "no answer within 3 s"), (State.RUNNING, "")]
        assert (await (await runtime.get("a")).status()).unanswered == "no answer within 3 s"


@pytest.mark.parametrize("verb", ["pause", "resume"])
async def test_what_cannot_be_written_down_is_undone(runtime, world, verb):
    pod = await runtime.create("p")
    await pod.start()
    if verb == "resume":
        await pod.pause()
    before = world.machines["p"].phase
    world.faults.operation = "storage_put"
    with pytest.raises(StorageError):
        await getattr(pod, verb)()
    world.faults.operation = ""
    assert world.machines["p"].phase is before
    await pod.delete(force=True)


async def test_ending_needs_no_space(open_runtime, world):
    """Nothing that is written fits any more; what is true is found out again."""

    class Full(mock_storage(world)):
        is_full = False

        @hookimpl
        async def storage_put(self, pod_id, container_id, record, data):
            if Full.is_full:
                raise OSError(errno.ENOSPC, "No space left on device")
            await super().storage_put(pod_id, container_id, record, data)

    async with open_runtime(extra={("storage", "mock"): Full}) as runtime:
        pod = await runtime.create("p")
        for name in ("a", "b", "c"):
            await pod.create_container(container(name))
        await pod.start()
        Full.is_full = True
        with pytest.raises(StorageError, match="No space left"):
            await pod.annotate({"a": "b"})
        await pod.container("a").stop(grace_s=0)
        await pod.container("b").delete(force=True)
        assert [one.state for one in (await pod.status()).containers] == [
            State.STOPPED,
            State.RUNNING,
        ]
        await pod.stop(grace_s=0)
        assert (await pod.status()).state is State.STOPPED
        await pod.delete()
    assert (world.machines, world.records) == ({}, {})
