"""A pool: machines that wait, taken by one pod each, made again by a keeper whose death harms
nobody.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil

import pytest
from msgspec import structs

from tests.engine.specs import container
from vc_core.defaults import Start
from vc_core.engine.api import pool_keeper
from vc_core.engine.clones import pool_signals
from vc_core.engine.state.states import State
from vc_core.spec import Busy, OperationError, VmPhase, VmSize

STEPS = 150


@pytest.fixture
def config(config):
    return structs.replace(config, pod=structs.replace(config.pod, start=Start.POOL))


def _folders(config) -> list[str]:
    return sorted(path.name for path in (config.template.dir / "pool").glob("*") if path.is_dir())


async def _started(runtime, name: str, **more):
    pod = await runtime.create(name, **more)
    await pod.create_container(container("c"))
    await pod.start()
    return pod


async def test_a_pod_takes_what_waits_and_its_folder_goes_with_it(runtime, world, config):
    await pool_keeper.fill(runtime, 2)
    waiting = runtime.pool.list()
    assert [machine.phase for machine in world.machines.values()] == [VmPhase.PAUSED] * 2
    pod = await _started(runtime, "p")
    assert world.machines["p"].containers["c"].is_started
    assert [one.id for one in runtime.pool.list()] == [waiting[1].id]
    await pod.stop()
    await pod.start()  # takes the other one
    assert runtime.pool.list() == ()
    await pod.delete(force=True)
    assert _folders(config) == []
    assert world.residue() == []


async def test_where_none_waits_one_is_cloned(runtime, world):
    await _started(runtime, "p")
    assert world.machines["p"].is_clone


async def test_many_takers_never_share_one(open_runtime, world):
    async with open_runtime() as one, open_runtime() as other:
        await pool_keeper.fill(one, 3)
        pods = await asyncio.gather(
            *(_started((one, other)[number % 2], f"p{number}") for number in range(6))
        )
        homes = [world.records[pod.id] for pod in pods]
        assert len(homes) == 6
        assert len({id(world.machines[pod.id]) for pod in pods}) == 6
        assert one.pool.list() == ()


async def test_a_large_pod_takes_a_small_machine_and_grows(runtime, world):
    await pool_keeper.fill(runtime, 1)
    await _started(runtime, "p", vcpus=2, memory_mib=512)
    assert world.machines["p"].size == VmSize(vcpus=2, memory_mib=512)
    assert runtime.pool.list() == ()


async def test_what_is_missing_dead_or_too_much_is_made_good(runtime, world):
    await pool_keeper.fill(runtime, 3)
    names = [one.id for one in runtime.pool.list()]
    world.machines[f"pool-{names[0]}"].end("killed")
    await pool_keeper.fill(runtime, 3)
    now = [one.id for one in runtime.pool.list()]
    assert names[0] not in now
    assert len(now) == 3
    await pool_keeper.fill(runtime, 1)
    assert len(runtime.pool.list()) == 1


async def test_machines_of_a_stale_template_are_drained(runtime, world, monkeypatch):
    await pool_keeper.fill(runtime, 2)
    before = {one.key for one in runtime.pool.list()}
    world.guest_id = "rebuilt"
    await pool_keeper.fill(runtime, 2)
    after = {one.key for one in runtime.pool.list()}
    assert before.isdisjoint(after)
    assert len(runtime.pool.list()) == 2
    assert len(world.machines) == 2


async def test_machines_go_with_their_template(runtime, world):
    await pool_keeper.fill(runtime, 2)
    await runtime.remove_template("")
    assert runtime.pool.list() == ()
    assert world.machines == {}


async def test_a_keeper_refills_after_each_taker_and_ends_what_waits(open_runtime, world, config):
    async with open_runtime() as keeping, open_runtime() as runtime:
        full = asyncio.Semaphore(0)
        task = asyncio.create_task(pool_keeper.keep(keeping, 2, full.release))
        await full.acquire()
        await _started(runtime, "p")
        await full.acquire()
        assert len(runtime.pool.list()) == 2
        with pytest.raises(Busy, match="another process keeps the pool"):
            await pool_keeper.keep(runtime, 1, lambda: None)
        assert await runtime.pool.stop(runtime.hooks)
        await task
        assert runtime.pool.list() == ()
        assert not await runtime.pool.stop(runtime.hooks)
        assert {id(one) for one in world.machines.values()} == {id(world.machines["p"])}


async def test_a_keeper_whose_folder_is_removed_ends_its_machines_and_itself(
    open_runtime, world, config
):
    """Those of an earlier keeper, too, but none that a pod has taken."""
    async with open_runtime() as keeping, open_runtime() as runtime:
        await pool_keeper.fill(runtime, 1)
        full = asyncio.Semaphore(0)
        task = asyncio.create_task(pool_keeper.keep(keeping, 3, full.release))
        await full.acquire()
        await _started(runtime, "p")
        await full.acquire()
        taken = world.machines["p"]
        shutil.rmtree(config.template.dir, ignore_errors=True)  # it has mounts, for root
        await asyncio.wait_for(task, 30)
        assert {id(one) for one in world.machines.values()} == {id(taken)}
        assert taken.phase is VmPhase.RUNNING


async def test_a_keeper_that_is_told_to_quit_while_it_starts_makes_nothing(
    open_runtime, world, config
):
    folder = config.template.dir / "pool"
    folder.mkdir(mode=0o700, parents=True)
    async with open_runtime() as keeping:
        fifo = pool_signals.open_fifo(folder / pool_signals.FIFO)  # as its spawner
        try:
            assert await keeping.pool.stop(keeping.hooks)
            await pool_keeper.keep(keeping, 1, pytest.fail)
        finally:
            os.close(fifo)
        assert world.machines == {}


async def test_a_waiting_machine_whose_files_are_removed_is_replaced(open_runtime, world, config):
    async with open_runtime() as keeping:
        full = asyncio.Semaphore(0)
        task = asyncio.create_task(pool_keeper.keep(keeping, 2, full.release))
        await full.acquire()
        lost, kept = keeping.pool.list()
        shutil.rmtree(config.template.dir / "pool" / lost.id, ignore_errors=True)
        assert keeping.pool.poke()
        await full.acquire()
        left = {one.id for one in keeping.pool.list()}
        assert len(left) == 2
        assert kept.id in left
        assert len(world.machines) == 2
        await keeping.pool.stop(keeping.hooks)
        await task


@pytest.mark.parametrize("is_deadly", [False, True])
async def test_a_fault_at_any_step_of_taking_gives_a_pod_or_nothing(
    open_runtime, world, config, is_deadly
):
    for step in range(1, STEPS):
        async with open_runtime() as runtime:
            await pool_keeper.fill(runtime, 1)
            pod = await runtime.create("p")
            await pod.create_container(container("c"))
            world.faults.at, world.faults.is_deadly = len(world.faults.calls) + step, is_deadly
            with contextlib.suppress(OperationError):
                await pod.start()
            was_hit = len(world.faults.calls) > world.faults.at
            world.faults.at, world.faults.is_deadly = -1, False
        if is_deadly:
            world.connections = 0
        async with open_runtime() as runtime:  # another process comes along
            pod = await runtime.get("p")
            if (await pod.status()).state is not State.RUNNING:
                await pod.start()
            assert world.machines["p"].containers["c"].is_started, step
            await pod.delete(force=True)
            async with runtime.pool.keeping():
                await runtime.pool.sweep(runtime.hooks)
            for waiting in runtime.pool.list():
                await runtime.pool.drop(waiting)
            assert world.residue() == [], step
            assert _folders(config) == [], step
        if not was_hit:
            break
    assert 20 < step < STEPS


async def test_stop_ends_what_a_killed_keeper_left(open_runtime, world, config):
    async with open_runtime() as dying:
        await dying.make_template()
        for step in (10, 14, 18, 22):
            world.faults.at, world.faults.is_deadly = len(world.faults.calls) + step, True
            with contextlib.suppress(OperationError):
                await pool_keeper.fill(dying, 1)
            world.faults.at, world.faults.is_deadly, world.connections = -1, False, 0
    assert _folders(config) != []
    async with open_runtime() as runtime:
        assert not await runtime.pool.stop(runtime.hooks)
    assert _folders(config) == []
    assert world.residue() == []


async def test_stop_spares_machines_of_another_stores_pods(open_runtime, config, tmp_path):
    folder = config.template.dir / "pool/0123456789ab"
    folder.mkdir(mode=0o700, parents=True)
    (folder / "taken-p.json").touch()
    (folder / "taker").write_text(str(tmp_path))  # its run folder, which exists
    async with open_runtime() as runtime:
        await runtime.pool.stop(runtime.hooks)
        assert folder.exists()
        (folder / "taker").write_text(str(tmp_path / "gone"))
        await runtime.pool.stop(runtime.hooks)
        assert not folder.exists()
