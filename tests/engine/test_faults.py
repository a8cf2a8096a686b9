"""A fault at every step of create, start, stop and delete: nothing is left behind, and the pod is
as before.
"""

from __future__ import annotations

import contextlib

import pytest
from msgspec import structs

from tests.engine.specs import container
from vc_core.engine.state.states import State
from vc_core.spec import HostDevice, Mount, OperationError, Resources
from vc_core.testing.mocks.world import World

STEPS = 150  # more than any of the sequences has: each test checks that it found the end
FIRST = {
    False: 0,
    True: 1,
}  # the first step is the lock, after which nothing fails (see the observer)


@pytest.fixture(params=["none", "mock"])
def config(request, config):
    """Pods without a network, and pods with one."""
    return structs.replace(config, use=structs.replace(config.use, network=request.param))


async def _prepare(runtime, tmp_path):
    pod = await runtime.create("p")
    (tmp_path / "data").mkdir(exist_ok=True)
    await pod.create_container(_demanding(tmp_path))
    await pod.create_container(container("b", rootfs="/etc"))
    return pod


def _demanding(tmp_path):
    """A container that needs something of everybody."""
    (tmp_path / "x.dev").touch()
    return container(
        "a",
        mounts=(Mount(source=tmp_path / "data", destination="/data"),),
        devices=(HostDevice(path=tmp_path / "x.dev", destination="/dev/x"),),
        resources=Resources(cpu_quota_us=200_000, memory_bytes=64 << 20),
    )


def _set_fault(world: World, step: int, after: bool) -> None:
    world.faults.at, world.faults.is_after = len(world.faults.calls) + step, after


def _was_hit(world: World) -> bool:
    return len(world.faults.calls) > world.faults.at


@pytest.mark.parametrize("after", [False, True])
async def test_a_failed_create_leaves_nothing(open_runtime, world, after):
    for step in range(STEPS):
        async with open_runtime() as runtime:
            _set_fault(world, step, after)
            with contextlib.suppress(OperationError):
                await runtime.create("p")
            if not _was_hit(world):
                break
            world.faults.at = -1
            if (
                "p" in world.records
            ):  # the fault hit the undo, or came after storage_create: it can be deleted
                await (await runtime.get("p")).delete()
            assert world.records == {}
    assert 2 < step < STEPS


@pytest.mark.parametrize("after", [False, True])
async def test_a_failed_start_is_undone_at_every_step(open_runtime, world, tmp_path, after):
    async with open_runtime() as runtime:
        pod = await _prepare(runtime, tmp_path)
        for step in range(FIRST[after], STEPS):
            _set_fault(world, step, after)
            try:
                await pod.start()
            except OperationError:
                pass
            else:
                break
            world.faults.at = -1
            assert world.residue() == [], f"step {step}: {world.faults.calls[-20:]}"
            found = await pod.status()
            assert found.state is State.READY, step
            assert [one.state for one in found.containers] == [State.READY, State.READY], step
        world.faults.at = -1
        assert 25 < step < STEPS
        await pod.delete()
    assert world.residue() == []
    assert world.records == {}


@pytest.mark.parametrize("after", [False, True])
async def test_a_failed_container_start_is_undone_at_every_step(
    open_runtime, world, tmp_path, after
):
    async with open_runtime() as runtime:
        pod = await runtime.create("p")
        await pod.start()
        (tmp_path / "data").mkdir()
        one = await pod.create_container(_demanding(tmp_path))
        for step in range(FIRST[after], STEPS):
            _set_fault(world, step, after)
            try:
                await one.start()
            except OperationError:
                world.faults.at = -1
                assert (await one.status()).state is not State.RUNNING, step
            else:
                break
        world.faults.at = -1
        assert 3 < step < STEPS
        assert (await one.status()).state is State.RUNNING
        await pod.delete()
    assert (world.residue(), world.records) == ([], {})


@pytest.mark.parametrize("after", [False, True])
async def test_a_failed_create_of_a_container_leaves_its_pod_as_it_was(
    open_runtime, world, tmp_path, after
):
    async with open_runtime() as runtime:
        pod = await runtime.create("p")
        await pod.start()
        (tmp_path / "data").mkdir()
        for step in range(FIRST[after], STEPS):
            _set_fault(world, step, after)
            try:
                await pod.create_container(_demanding(tmp_path))
            except OperationError:
                world.faults.at = -1
                assert (await pod.status()).containers == (), step
            else:
                break
            # What one fault undoes is undone in full; a fault in the undo itself is told, and the
            # pod takes it along.
        world.faults.at = -1
        assert 10 < step < STEPS
        assert world.prepared
        assert world.machines["p"].size.vcpus == 2
        await pod.delete()
    assert (world.residue(), world.records) == ([], {})


@pytest.mark.parametrize("after", [False, True])
async def test_a_failed_update_leaves_the_limits_that_were(open_runtime, world, tmp_path, after):
    async with open_runtime() as runtime:
        pod = await runtime.create("p")
        (tmp_path / "data").mkdir()
        one = await pod.create_container(_demanding(tmp_path))
        await pod.start()
        before = (await one.status()).spec.resources
        for step in range(FIRST[after], STEPS):
            _set_fault(world, step, after)
            try:
                await one.update(Resources(cpu_quota_us=300_000, pids=7))
            except OperationError:
                world.faults.at = -1
                assert (await one.status()).spec.resources == before, step
            else:
                break
        world.faults.at = -1
        assert 3 < step < STEPS
        assert (await one.status()).spec.resources == Resources(cpu_quota_us=300_000, pids=7)
        assert world.machines["p"].size.vcpus == 3
        await pod.delete()
    assert (world.residue(), world.records) == ([], {})


@pytest.mark.parametrize("verb", ["stop", "delete"])
@pytest.mark.parametrize("after", [False, True])
async def test_a_failed_stop_or_delete_can_be_said_again(
    open_runtime, world, tmp_path, verb, after
):
    for step in range(STEPS):
        async with open_runtime() as runtime:
            pod = await _prepare(runtime, tmp_path)
            await pod.start()
            _set_fault(world, step, after)
            with contextlib.suppress(OperationError):
                await getattr(pod, verb)()
            was_hit = _was_hit(world)
            world.faults.at = -1
            if "p" in world.records:
                again = await runtime.get("p")
                await again.delete()
        assert (world.residue(), world.records) == ([], {}), step
        if not was_hit:
            break
    assert 8 < step < STEPS


@pytest.mark.parametrize("verb", ["start", "stop", "delete"])
async def test_a_caller_killed_at_any_step_leaves_a_pod_that_can_be_deleted(
    open_runtime, world, tmp_path, verb
):
    """From the n-th operation on, nothing that the caller does has any effect: neither undo nor
    release.
    """
    for step in range(STEPS):
        async with open_runtime() as doomed:
            pod = await _prepare(doomed, tmp_path)
            if verb != "start":
                await pod.start()
            _set_fault(world, step, after=False)
            world.faults.is_deadly = True
            with contextlib.suppress(OperationError):
                await getattr(pod, verb)()
            was_hit = _was_hit(world)
            with contextlib.suppress(OperationError):
                await doomed.close()
        world.faults.is_deadly, world.faults.at = False, -1
        world.locks.clear()  # the kernel gives back what a dead process held
        world.connections = 0
        async with open_runtime() as second:
            if "p" in world.records:
                assert [found.id for found in (await second.list()).pods] == ["p"], step
                again = await second.get("p")
                if (await again.status()).state is not State.RUNNING:
                    await again.start()
                    assert {one.state for one in (await again.status()).containers} == {
                        State.RUNNING
                    }, step
                await again.delete()
            assert (world.residue(), world.records) == ([], {}), (
                f"step {step}: {world.residue()}, {world.faults.calls[-12:]}"
            )
        if not was_hit:
            break
    assert 3 < step < STEPS


@pytest.mark.parametrize("again", ["start it", "delete it"])
async def test_a_caller_killed_while_it_made_a_container_leaves_one_that_can_be_used(
    open_runtime, world, tmp_path, again
):
    (tmp_path / "data").mkdir()
    runtime = open_runtime()
    await (await runtime.create("p")).start()
    for step in range(STEPS):
        _set_fault(world, step, after=True)
        world.faults.is_deadly = True
        with contextlib.suppress(OperationError):
            await (await runtime.get("p")).create_container(_demanding(tmp_path))
        was_hit = _was_hit(world)
        world.faults.at, world.faults.is_deadly, world.connections = -1, False, 0
        world.locks.clear()
        runtime = open_runtime()  # the next process
        pod = await runtime.get("p")
        names = [one.id for one in (await pod.status()).containers]
        if names and again == "start it":
            await pod.container("a").start()
            made = world.machines["p"].containers["a"].made
            assert [len(device.plugged) for device in made.devices] == [1], step
            await pod.container("a").stop(0)
        for name in names:
            await pod.container(name).delete()
        machine = world.machines["p"]
        devices = {one for one in machine.devices if one != "nic0"}
        assert (machine.containers, devices, world.prepared) == ({}, set(), set()), (
            step,
            world.faults.calls[-9:],
        )
        if not was_hit:
            break
    assert 10 < step < STEPS
    await pod.delete()
    await runtime.close()
