"""The life of pods and containers on mocks, wired as real plugins are."""

from __future__ import annotations

import asyncio
import gc
import weakref
from contextlib import asynccontextmanager

import pytest
from msgspec import structs

from tests.engine.specs import container
from vc_core.config import Config
from vc_core.defaults import Deadlines
from vc_core.engine.state.states import State
from vc_core.spec import (
    AlreadyExists,
    Busy,
    ExitStatus,
    InvalidRequest,
    NotFound,
    OperationTimeout,
    StateError,
    Stdio,
    around,
)


async def test_a_pod_lives_through_all_its_states(runtime, world):
    pod = await runtime.create("p")
    assert (await pod.status()).state is State.READY
    await pod.create_container(container())
    await pod.start()
    found = await pod.status()
    assert (found.state, found.containers[0].state) == (State.RUNNING, State.RUNNING)
    await pod.pause()
    assert (await pod.status()).containers[0].state is State.PAUSED
    await pod.resume()
    await pod.stop()
    found = await pod.status()
    assert (found.state, found.reason, found.containers[0].state) == (
        State.STOPPED,
        "stopped",
        State.STOPPED,
    )
    assert world.residue() == []
    await pod.start()
    assert (await pod.status()).containers[0].state is State.RUNNING
    await pod.delete()
    assert world.records == {}
    assert world.machines == {}
    names = [event.split()[0] for event in world.recording.told]
    assert names == [
        *(
            "pod_created",
            "container_created",
            "container_started",
            "pod_started",
            "pod_paused",
            "pod_resumed",
        ),
        *("container_stopped", "pod_stopped"),
        *("container_started", "pod_started", "container_stopped", "pod_stopped", "pod_deleted"),
    ]


async def test_two_containers_share_one_machine(runtime, world):
    async with runtime.pod("p") as pod:
        for name in ("a", "b"):
            await (await pod.create_container(container(name))).start()
        assert set(world.machines["p"].containers) == {"a", "b"}
        assert len(world.machines["p"].shares) == 1, "the same folder is plugged once"
        await pod.container("a").delete(force=True)
        assert (await pod.container("b").status()).state is State.RUNNING
    assert world.residue() == []


async def test_another_process_takes_over(runtime, open_runtime):
    pod = await runtime.create("p")
    await pod.create_container(container("c1", "exit", "3"))
    async with open_runtime() as second:
        await (await second.get("p")).start()
    async with open_runtime() as third:
        again = await third.get("p")
        assert (await again.container("c1").wait()).code == 3
        assert (await again.status()).containers[0].exit == ExitStatus(code=3)
        await again.delete()
    with pytest.raises(NotFound):
        await pod.status()


async def test_status_of_a_container_is_never_stale(runtime, world):
    async with runtime.pod("p") as pod:
        one = await pod.create_container(container())
        await one.start()
        made = world.machines["p"].containers["c1"]
        made.processes[made.made.token].end(5)
        found = await one.status()
        assert (found.state, found.exit) == (State.STOPPED, ExitStatus(code=5))


async def test_status_of_an_unknown_container_is_an_error(runtime):
    pod = await runtime.create("p")
    with pytest.raises(NotFound, match="it has: none"):
        await pod.container("nobody").status()


async def test_a_container_id_is_taken_once(runtime):
    pod = await runtime.create("p")
    await pod.create_container(container())
    with pytest.raises(AlreadyExists):
        await pod.create_container(container())


async def test_a_pod_id_is_taken_once(runtime):
    await runtime.create("p")
    with pytest.raises(AlreadyExists):
        await runtime.create("p")


async def test_stop_works_from_paused_and_twice(runtime, world):
    pod = await runtime.create("p")
    await pod.create_container(container())
    await pod.start()
    await pod.pause()
    await pod.stop()
    await pod.stop()
    assert (await pod.status()).state is State.STOPPED
    assert world.residue() == []


async def test_resume_restores_each_containers_own_state(runtime):
    async with runtime.pod("p") as pod:
        for name in ("runs", "stopped", "ready"):
            await pod.create_container(container(name))
        await pod.container("runs").start()
        await pod.container("stopped").start()
        await pod.container("stopped").stop()
        await pod.pause()
        await pod.resume()
        found = {one.id: one.state for one in (await pod.status()).containers}
        assert found == {"runs": State.RUNNING, "stopped": State.STOPPED, "ready": State.READY}


@pytest.mark.parametrize("count", [1, 2, 3, 20])
async def test_delete_ends_the_machine_and_any_number_of_containers(runtime, world, count):
    pod = await runtime.create("p")
    for number in range(count):
        await pod.create_container(container(f"c{number}"))
    await pod.start()
    await pod.delete()
    assert (world.records, world.machines) == ({}, {})


async def test_a_failing_read_harms_nothing(runtime, world):
    async with runtime.pod("p") as pod:
        await pod.create_container(container())
        key = ("", "pod-state")
        good = world.records["p"][key]
        world.records["p"][key] = "{ half"
        with pytest.raises(Exception, match="mock:p//pod-state is damaged"):
            await pod.status()
        listing = await runtime.list()
        assert "damaged" in listing.damaged[0].reason
        world.records["p"][key] = good
        assert (await pod.status()).state is State.RUNNING


async def test_a_dead_machine_is_told_and_cleaned(runtime, world):
    pod = await runtime.create("p")
    await pod.create_container(container())
    await pod.start()
    world.machines["p"].end("somebody pulled the plug")
    found = await pod.status()
    assert (found.state, found.containers[0].state) == (State.STOPPED, State.STOPPED)
    assert "somebody pulled the plug" in found.reason
    await pod.start()
    assert (await pod.status()).state is State.RUNNING


async def test_a_reboot_leaves_stopped_pods_that_start_again(runtime, world, open_runtime):
    pod = await runtime.create("p")
    await pod.create_container(container())
    await pod.start()
    world.reboot()
    async with open_runtime() as after:
        again = await after.get("p")
        found = await again.status()
        assert (found.state, found.reason) == (State.STOPPED, "the host was rebooted")
        await again.start()
        assert (await again.status()).containers[0].state is State.RUNNING
        await again.delete()


async def test_stop_gives_grace_then_kills(runtime):
    async with runtime.pod("p") as pod:
        polite = await pod.create_container(container("polite"))
        await polite.start()
        await polite.stop(grace_s=5)
        assert (await polite.status()).exit == ExitStatus(code=143, signal=15)
        stubborn = await pod.create_container(container("stubborn", "stubborn"))
        await stubborn.start()
        await stubborn.stop(grace_s=0.05)
        assert (await stubborn.status()).exit == ExitStatus(code=137, signal=9)
        await stubborn.stop()


async def test_a_hung_guest_holds_nobody_past_the_deadline(open_runtime, world, config):
    short = structs.replace(config, deadlines=Deadlines(default=1, boot=20, lock=20, stop=0.1))
    async with open_runtime(short) as runtime:
        pod = await runtime.create("p")
        await pod.create_container(container())
        await pod.start()
        world.machines["p"].is_hung = True
        with pytest.raises(OperationTimeout, match=r"raise deadlines\.operations\.agent_"):
            await pod.exec("true")
        await pod.stop()
        assert "killed" in (await pod.status()).reason
    assert world.residue() == []


async def test_a_lock_that_is_held_has_a_deadline(open_runtime, config):
    short = structs.replace(config, deadlines=Deadlines(default=5, lock=0.05))
    async with open_runtime(short) as runtime:
        await runtime.create("p")
        held = await runtime.hooks.storage_lock(pod_id="p", exclusive=True, timeout_s=1)
        with pytest.raises(Busy):
            await (await runtime.get("p")).start()
        await held.release()
        assert (await (await runtime.get("p")).status()).state is State.READY


async def test_wrong_calls_say_what_would_be_right(runtime):
    pod = await runtime.create("p")
    for call, words in (
        (pod.pause(), "pod p is ready; to pause it it must be running"),
        (pod.resume(), "to resume it it must be paused"),
        (pod.stats(), "must be paused or running"),
    ):
        with pytest.raises(StateError, match=words):
            await call
    await pod.start()
    with pytest.raises(StateError, match="pod p is running; to start it"):
        await pod.start()
    one = await pod.create_container(container())
    with pytest.raises(StateError, match="container c1 of pod p is ready"):
        await one.kill(15)
    await one.start()
    with pytest.raises(StateError, match="to delete it it must be ready or stopped"):
        await one.delete()


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".", "x" * 65, "a b"])
async def test_ids_that_are_no_folder_names_are_refused(runtime, name):
    pod = await runtime.create()
    with pytest.raises(InvalidRequest):
        await pod.create_container(container(name))


async def test_impossible_requests_leave_nothing(runtime, world):
    with pytest.raises(InvalidRequest, match="memory_mib"):
        await runtime.create("p", memory_mib=1)
    with pytest.raises(InvalidRequest, match="vcpus"):
        await runtime.create("p", vcpus=0)
    assert world.records == {}
    pod = await runtime.create("p")
    with pytest.raises(InvalidRequest, match="/no/such is not a directory"):
        await pod.create_container(container(rootfs="/no/such"))
    assert (await pod.status()).containers == ()


async def test_run_gives_output_and_leaves_no_container(runtime, world):
    async with runtime.pod("p") as pod:
        result = await pod.run("cat", stdin=b"hello", rootfs="/usr")
        assert (result.exit_code, result.stdout) == (0, b"hello")
        assert (await pod.run("cat", stdin="grüezi")).stdout == "grüezi".encode()
        assert (await pod.status()).containers == ()


async def test_what_is_launched_goes_on_and_is_the_pods_only_container(runtime):
    pod = await runtime.create("p")
    with pytest.raises(NotFound, match="pod p has no container; 'vc container create p' makes one"):
        await pod.only_container()
    box = await pod.launch("init", container_id="box", env=("A=b",), cwd="/w", user="7")
    assert (await pod.status()).state is State.RUNNING
    first = (await box.spec()).process
    assert (first.args, first.env[1:], first.cwd, first.user) == (("init",), ("A=b",), "/w", "7")
    assert await pod.only_container() == "box"
    await pod.launch("init", container_id="other")
    with pytest.raises(NotFound, match=r"2 containers \(box, other\); name one"):
        await pod.only_container()
    with pytest.raises(AlreadyExists):
        await pod.launch("init", container_id="box")
    assert {one.id for one in (await pod.status()).containers} == {"box", "other"}
    await pod.delete(force=True)


async def test_a_launch_that_fails_leaves_no_container(runtime, world):
    pod = await runtime.create("p")
    world.is_booting_for_ever = True
    launching = asyncio.create_task(pod.launch("init"))
    await world.connected.wait()
    launching.cancel()
    with pytest.raises(asyncio.CancelledError):
        await launching
    found = await pod.status()
    assert (found.state, found.containers) == (State.READY, ())


async def test_exec_kill_and_ps(runtime):
    async with runtime.pod("p") as pod:
        one = await pod.create_container(container("c1", "init", stdio=Stdio.PIPES))
        await one.start()
        process = await one.exec(container("x", "sh").process)
        assert [row.command[0] for row in await one.processes()] == ["init", "sh"]
        await process.kill(15)
        assert (await process.wait()).signal == 15
        with pytest.raises(StateError, match="ended"):
            await process.kill(15)
        await one.kill(9, everything=True)
        assert (await one.wait()).code == 137


async def test_cancelling_a_start_undoes_it(runtime, world, config):
    pod = await runtime.create("p")
    await pod.create_container(container())
    world.is_booting_for_ever = True
    starting = asyncio.create_task(pod.start())
    await world.connected.wait()
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert world.residue() == []
    assert (await pod.status()).state is State.READY


async def test_pods_remember_the_plugins_they_were_made_with(runtime, open_runtime, config):
    await runtime.create("p")
    other: Config = config
    async with open_runtime(
        structs.replace(other, use=structs.replace(other.use, observers=()))
    ) as changed:
        found = await (await changed.get("p")).status()
        assert [choice.name for choice in found.config.plugins if choice.family == "observer"] == [
            "recording",
            "faults",
        ]


async def test_a_machine_that_dies_while_its_guest_is_asked_has_ended(open_runtime, world, config):
    class Killer:
        @around
        @asynccontextmanager
        async def agent_list_containers(self, pod):
            world.machines[pod.id].end("somebody pulled the plug")
            yield

    watched = structs.replace(config, use=structs.replace(config.use, observers=("killer",)))
    async with open_runtime(watched, {("observer", "killer"): Killer}) as runtime:
        pod = await runtime.create("p")
        await pod.create_container(container())
        await pod.start()
        listing = await runtime.list(ask_guests=True)
        assert listing.problems == ()
        assert (listing.pods[0].state, listing.pods[0].containers[0].state) == (
            State.STOPPED,
            State.STOPPED,
        )
        assert "pulled the plug" in listing.pods[0].reason
        await pod.delete()


async def test_a_long_lived_runtime_keeps_nothing_of_deleted_pods(runtime):
    gone = []
    for number in range(3):
        pod = await runtime.create(f"p{number}")
        await pod.start()
        gone += [weakref.ref(pod), weakref.ref(pod._sessions)]
        if number:
            await pod.delete()
        else:
            await runtime.delete(pod.id, force=True)
    del pod
    gc.collect()
    assert [found() for found in gone if found() is not None] == []


async def test_the_end_of_a_runtime_ends_the_connections_of_all_its_pods(open_runtime, world):
    async with open_runtime() as runtime:
        for name in ("a", "b"):
            await (await runtime.create(name)).start()
        assert world.connections == 2
        await (await runtime.get("a")).status()
    assert world.connections == 0
