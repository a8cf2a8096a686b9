"""Snapshots and forks: a pod goes on twice, the parent is as it was, and nothing half
made is left.
"""

from __future__ import annotations

import contextlib

import pytest
from msgspec import structs

from tests.engine.specs import container
from vc_core.engine.state.records import Store
from vc_core.engine.state.states import State
from vc_core.spec import (
    AlreadyExists,
    Capability,
    HostDevice,
    HypervisorError,
    InvalidRequest,
    Mount,
    NotFound,
    OperationError,
    Resources,
    StateError,
    StorageError,
    VmPhase,
    VmSize,
    hookimpl,
)
from vc_core.testing.mocks.hypervisor import ALL, MockHypervisor

STEPS = 200
FIRST = {False: 0, True: 1}  # as in test_faults


@pytest.fixture
def data(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "x.dev").touch()
    return tmp_path / "data"


def _demanding(data, *args, read_only=True):
    """A container that needs something of everybody."""
    return container(
        "a",
        *args,
        mounts=(Mount(source=data, destination="/data"),),
        devices=(
            HostDevice(path=data.parent / "x.dev", destination="/dev/x", read_only=read_only),
        ),
        resources=Resources(cpu_quota_us=200_000, memory_bytes=64 << 20),
    )


async def _running(runtime, data, name="p", **more):
    pod = await runtime.create(name, **more)
    await pod.create_container(_demanding(data))
    await pod.create_container(container("b", "exit", "3", rootfs="/etc"))
    await pod.start()
    await pod.create_container(container("late", rootfs="/opt"))
    return pod


def _files(config) -> list[str]:
    folders = (config.snapshot.dir, config.template.dir / "forks")
    return sorted(path.name for folder in folders if folder.exists() for path in folder.iterdir())


async def test_forks_go_on_with_what_the_parent_had(runtime, world, data, config):
    pod = await _running(runtime, data)
    before = await pod.status()
    forks = await pod.fork(2)
    for one in forks:
        status = await one.status()
        assert (status.state, status.size) == (State.RUNNING, before.size)
        assert [(each.id, each.state, each.exit) for each in status.containers] == [
            (each.id, each.state, each.exit) for each in before.containers
        ]
        machine = world.machines[one.id]
        assert machine.shares["vc1"].path == config.template.dir.parent / "run" / one.id / "files"
        assert len(list(machine.shares["vc1"].path.iterdir())) == 1
        assert len(machine.devices) == 1
        await one.container("late").start()
        assert (await one.container("a").status()).state is State.RUNNING
    assert len({pod.id, *(one.id for one in forks)}) == 3
    assert _files(config) == []
    for one in (pod, *forks):
        await one.delete()
    assert (world.residue(), world.records) == ([], {})


async def test_a_fork_is_somebody_else(runtime, world, data):
    pod = await _running(runtime, data, hostname="parent")
    (child,) = await pod.fork()
    one, other = world.set_ups
    assert (one.hostname, other.hostname) == ("parent", child.id)
    assert one.machine_id != other.machine_id
    assert one.seed != other.seed
    assert not world.machines["p"].is_let_go
    assert not world.machines[child.id].is_let_go


async def test_a_fork_says_how_long_its_parent_stood_still(runtime, world, data):
    pod = await _running(runtime, data)
    world.stood_still_s = 0.25
    children = await pod.fork(2)
    assert (len(children), children.stood_still_s) == (2, 0.25)
    assert children.detached_s > 0  # it has a directory
    world.stood_still_s = None  # a driver that does not measure: the time of its operation
    assert 0 < (await pod.fork()).stood_still_s < children.detached_s + 60


async def _killed_while_saving(runtime, data):
    """A pod whose saving process was killed."""
    pod = await _running(runtime, data)
    await pod.close()
    store = Store(runtime.hooks, "p")
    await store.put_pod_state(structs.replace(await store.pod_state(), is_saving=True))
    return await runtime.get("p")


async def test_after_a_killed_save_the_guest_learns_that_it_is_the_same(runtime, world, data):
    pod = await _killed_while_saving(runtime, data)
    world.machines["p"].is_let_go = True
    world.faults.calls.clear()
    assert (await pod.status()).state is State.RUNNING
    assert not world.machines["p"].is_let_go
    assert world.faults.calls.count("agent_unquiesce") == 1
    await pod.status()
    assert world.faults.calls.count("agent_unquiesce") == 1


@pytest.mark.parametrize("operation", ["vm_pause", "vm_resume"])
@pytest.mark.parametrize("method", ["stop", "delete"])
async def test_after_a_killed_save_a_machine_that_does_not_answer_can_be_ended(
    runtime, world, data, monkeypatch, operation, method
):
    pod = await _killed_while_saving(runtime, data)

    async def fails(self, pod):
        raise HypervisorError("no answer")

    monkeypatch.setattr(MockHypervisor, operation, hookimpl(fails))
    with pytest.raises(HypervisorError, match="no answer"):
        await pod.pause()
    await getattr(pod, method)()
    if method == "stop":
        assert (await pod.status()).state is State.STOPPED
    else:
        assert (world.residue(), world.records) == ([], {})


async def test_a_snapshot_outlives_its_pod_and_starts_often(runtime, world, data, config):
    pod = await _running(runtime, data)
    made = await pod.snapshot("s")
    assert (made.name, made.config.id, made.bytes > 0) == ("s", "p", True)
    assert [one.name for one in await runtime.forks.snapshots.list()] == ["s"]
    await pod.delete(force=True)
    for name in ("p", "q"):
        restored = await runtime.restore("s", name)
        assert (await restored.container("a").status()).state is State.RUNNING
    with pytest.raises(AlreadyExists):
        await runtime.restore("s", "q")
    await runtime.forks.snapshots.remove("s")
    assert (await restored.status()).state is State.RUNNING
    assert _files(config) == []


async def test_a_restored_pod_can_be_stopped_started_and_saved_again(runtime, data):
    await (await _running(runtime, data)).snapshot("s")
    restored = await runtime.restore("s")
    await restored.stop()
    await restored.start()
    assert (await restored.container("a").status()).state is State.RUNNING
    (child,) = await restored.fork()
    assert (await child.status()).state is State.RUNNING


async def test_names_are_checked(runtime, data):
    pod = await _running(runtime, data)
    await pod.snapshot("s")
    with pytest.raises(AlreadyExists, match="'vc snapshot rm s' removes it"):
        await pod.snapshot("s")
    with pytest.raises(InvalidRequest, match="no snapshot id"):
        await pod.snapshot("../s")
    with pytest.raises(NotFound, match="no snapshot t; there are: s"):
        await runtime.restore("t")
    with pytest.raises(NotFound, match="no snapshot t; there are: s"):
        await runtime.forks.snapshots.remove("t")


async def test_only_a_running_pod_is_saved(runtime, data, config):
    pod = await runtime.create("p")
    with pytest.raises(StateError, match="pod p is ready; to save it it must be running"):
        await pod.snapshot("s")
    assert _files(config) == []


async def test_what_a_snapshot_cannot_contain_is_named(runtime, world, data, config):
    pod = await runtime.create("p")
    await pod.create_container(_demanding(data, read_only=False))
    await pod.start()
    with pytest.raises(InvalidRequest, match=r"x\.dev of container a is written to"):
        await pod.fork()
    await pod.delete(force=True)
    pod = await runtime.create("p", can_quiesce=False)
    await pod.create_container(_demanding(data))
    await pod.start()
    with pytest.raises(
        InvalidRequest, match="pod p was made without can_quiesce and uses the directory /usr"
    ):
        await pod.fork()
    assert _files(config) == []
    assert (await pod.status()).state is State.RUNNING


async def test_the_agent_learns_of_a_checkpoint_of_a_pod_without_folders(runtime, world, tmp_path):
    """Else it takes the end of the parent's clients, in the children, for that of its own."""
    image = tmp_path / "image.dev"  # which the mock claims
    image.write_bytes(bytes(0x438) + b"\x53\xef" + bytes(4096))  # the superblock of ext4
    pod = await runtime.create("p", start="cold")
    await pod.create_container(container("c", rootfs=str(image)))
    await pod.start()
    assert not world.machines["p"].is_ready_template
    children = await pod.fork()
    assert world.machines["p"].is_ready_template
    assert not world.machines["p"].is_let_go
    assert children.detached_s == 0


async def test_a_mount_whose_source_is_gone_is_named(runtime, world, data, config):
    pod = await _running(runtime, data)
    await pod.snapshot("s")
    data.rename(data.with_name("moved"))
    for call in (pod.fork(), runtime.restore("s", "q")):
        with pytest.raises(
            InvalidRequest, match=rf"{data}, which container a of pod p has mounted, is gone"
        ):
            await call
    assert sorted(world.records) == ["p"]
    assert [name for name in _files(config) if not name.startswith(".")] == ["s"]


async def test_a_hypervisor_that_cannot_is_named(open_runtime, world, data):
    world.capabilities = ALL - {Capability.SNAPSHOT}
    async with open_runtime() as runtime:
        pod = await _running(runtime, data)
        with pytest.raises(InvalidRequest, match="cannot save a machine that is at work"):
            await pod.fork()


async def test_a_damaged_snapshot_is_not_used(runtime, data, config, caplog):
    await (await _running(runtime, data)).snapshot("s")
    (config.snapshot.dir / "s" / "memory").write_text("less")
    with pytest.raises(StorageError, match="the snapshot s is damaged"):
        await runtime.restore("s")
    assert await runtime.forks.snapshots.list() == ()
    assert "the snapshot s is damaged" in caplog.text


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("verb", ["snapshot", "fork", "restore"])
async def test_a_failure_leaves_the_parent_and_nothing_else(
    open_runtime, world, data, config, verb, after
):
    async with open_runtime() as runtime:
        pod = await _running(runtime, data)
        if verb == "restore":
            await pod.snapshot("s")
        calls = {
            "snapshot": lambda: pod.snapshot("s"),
            "fork": lambda: pod.fork(2),
            "restore": lambda: runtime.restore("s", "q"),
        }
        kept = ["s"] if verb == "restore" else []
        for step in range(FIRST[after], STEPS):
            world.faults.at, world.faults.is_after = len(world.faults.calls) + step, after
            with contextlib.suppress(OperationError):
                await calls[verb]()
            was_hit = len(world.faults.calls) > world.faults.at
            world.faults.at = -1
            if not was_hit:
                break
            for name in sorted(
                set(world.records) - {"p"}
            ):  # the fault hit the undo: it can be deleted
                await (await runtime.get(name)).delete(force=True)
            if "s" in _files(config) and verb == "snapshot":  # the fault came after it was complete
                await runtime.forks.snapshots.remove("s")
            assert (sorted(world.records), sorted(world.machines)) == (["p"], ["p"]), step
            assert [name for name in _files(config) if not name.startswith(".")] == kept, step
            assert (await pod.status()).state is State.RUNNING, step
            assert (await pod.container("a").status()).state is State.RUNNING, step
            assert not world.machines["p"].is_let_go, step
        assert 5 < step < STEPS


async def test_who_was_killed_while_saving_leaves_a_pod_that_goes_on(
    open_runtime, world, data, config
):
    steps = set()
    async with open_runtime() as runtime:
        await _running(runtime, data)
    for step in range(1, STEPS):
        async with open_runtime() as dying:
            pod = await dying.get("p")
            world.faults.at, world.faults.is_deadly = len(world.faults.calls) + step, True
            with contextlib.suppress(OperationError):
                await pod.snapshot("s")
            was_hit = len(world.faults.calls) > world.faults.at
            was_saving = world.faults.calls[-1] == "vm_checkpoint"
            world.faults.at, world.faults.is_deadly, world.connections = -1, False, 0
            world.machines["p"].is_let_go = False  # the guest notices that its client is gone
            world.locks.clear()
        if was_saving:
            steps.add("saving")
            world.machines["p"].phase = VmPhase.PAUSED  # the driver was killed with it
        async with open_runtime() as runtime:
            pod = await runtime.get("p")
            assert (await pod.status()).state is State.RUNNING, step
            assert world.machines["p"].phase is VmPhase.RUNNING, step
            for one in await runtime.forks.snapshots.list():
                await runtime.forks.snapshots.remove(one.name)
            assert _files(config) == [], step
        if not was_hit:
            break
    assert 5 < step < STEPS


async def test_a_save_whose_caller_was_killed_does_not_pause_the_machine_later(
    open_runtime, world, data
):
    """The driver's save goes on without its caller while the machine runs."""
    async with open_runtime() as runtime:
        pod = await _running(runtime, data)
        for name in ("first", "second"):
            begin = len(world.faults.calls)
            await pod.snapshot(name)
        step = world.faults.calls[begin:].index("vm_checkpoint")
        world.faults.at, world.faults.is_deadly = len(world.faults.calls) + step, True
        with contextlib.suppress(OperationError):
            await pod.snapshot("s")
        assert world.faults.calls[world.faults.at] == "vm_checkpoint"
        world.faults.at, world.faults.is_deadly, world.connections = -1, False, 0
        world.machines["p"].is_let_go = False
        world.locks.clear()
    begin = len(world.faults.calls)
    async with open_runtime() as runtime:
        await (await runtime.get("p")).run("true")
    assert world.machines["p"].phase is VmPhase.RUNNING
    calls = [call for call in world.faults.calls[begin:] if call in ("vm_pause", "vm_resume")]
    assert calls == ["vm_pause", "vm_resume"]


async def test_the_size_is_that_of_the_parent(runtime, world, data):
    pod = await _running(runtime, data, vcpus=2, memory_mib=512)
    assert (await pod.status()).size == VmSize(vcpus=2, memory_mib=576)
    (child,) = await pod.fork()
    assert (await child.status()).size == VmSize(vcpus=2, memory_mib=576)
    config = (await child.status()).config
    assert structs.replace(config, id="p", hostname="p", created_ns=0) == structs.replace(
        (await pod.status()).config, created_ns=0
    )
