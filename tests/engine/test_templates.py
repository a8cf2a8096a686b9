"""Templates: made once, never used half made, dropped at will, and never the reason that a pod does
not start.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging

import pytest
from msgspec import structs

from tests.engine.specs import container
from vc_core.defaults import Start
from vc_core.engine.state.states import State
from vc_core.spec import Capability, InvalidRequest, NotFound, OperationError, VmSize
from vc_core.testing.mocks.hypervisor import ALL

STEPS = 150


@pytest.fixture
def config(config):
    return structs.replace(config, pod=structs.replace(config.pod, start=Start.AUTO))


def _folders(config) -> list[str]:
    return sorted(path.name for path in config.template.dir.glob("*") if path.is_dir())


async def _started(runtime, name: str, **more):
    pod = await runtime.create(name, **more)
    await pod.create_container(container("c"))
    await pod.start()
    return pod


async def test_the_first_start_makes_what_the_next_ones_use(runtime, world, config):
    for name in ("a", "b", "c"):
        await _started(runtime, name)
    assert [world.machines[name].is_clone for name in ("a", "b", "c")] == [True, True, True]
    assert len(_folders(config)) == 1
    assert world.faults.calls.count("vm_checkpoint") == 1
    assert sorted(world.machines) == ["a", "b", "c"]  # that of the template is gone


async def test_each_clone_gets_an_identity_of_its_own(runtime, world):
    for name in ("a", "b"):
        await _started(runtime, name)
    one, other = world.set_ups
    assert (one.hostname, other.hostname) == ("a", "b")
    assert one.machine_id != other.machine_id
    assert one.seed != other.seed


async def test_the_machine_id_stays_when_a_pod_boots_again(runtime, world):
    pod = await _started(runtime, "a")
    await pod.stop()
    await pod.start()
    one, other = world.set_ups
    assert one.machine_id == other.machine_id
    assert one.seed != other.seed


async def test_several_at_once_make_one(open_runtime, world, config):
    async with open_runtime() as one, open_runtime() as other:
        runtimes = (one, other) * 3
        await asyncio.gather(
            *(_started(runtime, f"p{number}") for number, runtime in enumerate(runtimes))
        )
        assert world.faults.calls.count("vm_checkpoint") == 1
        assert all(machine.is_clone for machine in world.machines.values())


async def test_a_larger_pod_grows_from_the_same_template(runtime, world, config):
    await _started(runtime, "small")
    large = await _started(runtime, "large", vcpus=3, memory_mib=1024)
    assert world.machines["large"].size == VmSize(vcpus=3, memory_mib=1024)
    assert (await large.status()).size == VmSize(vcpus=3, memory_mib=1024)
    assert len(_folders(config)) == 1


async def test_what_a_pod_does_not_need_stands_empty(runtime, world):
    pod = await runtime.create("p")
    await pod.start()
    shares = world.machines["p"].shares
    assert sorted(shares) == ["vc0", "vc1"]
    assert list(shares["vc0"].path.iterdir()) == []
    await (await pod.create_container(container("late"))).start()
    assert "vc2" in shares


async def test_cold_pods_make_none(runtime, world, config):
    await _started(runtime, "p", start=Start.COLD)
    assert not world.machines["p"].is_clone
    assert "vm_checkpoint" not in world.faults.calls


async def test_where_nothing_can_be_cloned_pods_boot_and_a_wish_is_refused(runtime, world):
    world.capabilities = ALL - {Capability.CLONE}
    await _started(runtime, "p")
    assert not world.machines["p"].is_clone
    with pytest.raises(InvalidRequest, match="they lack clone; start cold"):
        await runtime.create("q", start=Start.TEMPLATE)


@pytest.mark.parametrize("after", [False, True])
async def test_a_fault_at_any_step_gives_a_pod_or_nothing(
    open_runtime, world, config, after, caplog
):
    caplog.set_level(logging.WARNING)
    outcomes = set()
    for step in range(1, STEPS):
        async with open_runtime() as runtime:
            pod = await runtime.create("p")
            await pod.create_container(container("c"))
            world.faults.at, world.faults.is_after = len(world.faults.calls) + step, after
            caplog.clear()
            was_hit = True
            try:
                await pod.start()
            except OperationError:
                world.faults.at = -1
                assert (await pod.status()).state is State.READY, step
                assert world.residue() == [], (step, world.faults.calls[-20:])
                outcomes.add("undone")
            else:
                was_hit = len(world.faults.calls) > world.faults.at
                world.faults.at = -1
                machine = world.machines["p"]
                assert machine.containers["c"].is_started
                if was_hit and not machine.is_clone:
                    assert "could not be cloned from a template: " in caplog.text, step
                    outcomes.add("booted")
            await pod.delete(force=True)
            for template in await runtime.templates.list():
                assert template.bytes > 0
                await runtime.templates.remove(template.key)
            assert _folders(config) == [], step
            assert (world.residue(), world.records) == ([], {}), step
        if not was_hit and outcomes:
            break
    assert outcomes == {"undone", "booted"}
    assert 30 < step < STEPS


async def test_what_a_killed_maker_left_is_taken_away_with_its_machine(open_runtime, world, config):
    left = set()
    for step in range(1, STEPS):
        async with open_runtime() as dying:
            pod = await dying.create("p")
            world.faults.at, world.faults.is_deadly = (
                len(world.faults.calls) + step,
                True,
            )
            with contextlib.suppress(OperationError):
                await pod.start()
            was_hit = len(world.faults.calls) > world.faults.at
            world.faults.at, world.faults.is_deadly, world.connections = -1, False, 0
        left |= {name.partition("-")[0] for name in [*world.machines, *_folders(config)]}
        async with open_runtime() as runtime:
            await _started(runtime, "q")
            assert world.machines["q"].is_clone, step
            assert not any(name.startswith("template-") for name in world.machines), step
            assert not any(name.startswith(".half-") for name in _folders(config)), step
            for name in ("p", "q"):
                await (await runtime.get(name)).delete(force=True)
            await runtime.templates.remove("")
        if not was_hit:
            break
    assert {"template", ".half"} <= left
    assert 30 < step < STEPS


async def test_a_machine_that_dies_while_it_starts_is_noticed_and_booted_instead(
    runtime, world, caplog
):
    await runtime.make_template()
    world.dies_when_cloned = True
    pod = await _started(runtime, "p")
    assert not world.machines["p"].is_clone
    assert "the machine ended: it died while loading" in caplog.text
    assert (await pod.status()).state is State.RUNNING


async def test_templates_are_listed_and_removed_by_the_beginning_of_their_key(runtime, config):
    made = await runtime.make_template()
    assert await runtime.make_template() == made
    assert [one.key for one in await runtime.templates.list()] == [made.key]
    with pytest.raises(NotFound, match=f"no templates begin with 'zz'; there are: {made.key}"):
        await runtime.templates.remove("zz")
    assert (await runtime.templates.remove(made.key[:4])).key == made.key
    assert list(config.template.dir.iterdir()) == []


async def test_one_too_many_drops_the_one_that_was_not_used_for_the_longest_time(
    open_runtime, config
):
    for memory_mib in (64, 80, 96, 112):
        pod = structs.replace(config.pod, memory_mib=memory_mib)
        template = structs.replace(config.template, keep=2)
        async with open_runtime(structs.replace(config, pod=pod, template=template)) as runtime:
            await runtime.make_template()
            found = await runtime.templates.list()
    assert [one.size.memory_mib for one in found] == [112, 96]


async def test_a_template_of_an_earlier_boot_of_the_host_is_dropped(runtime, config, world):
    made = await runtime.make_template()
    manifest = config.template.dir / made.key / "manifest.json"
    told = json.loads(manifest.read_text())
    told["data"]["boot"] = "another"
    manifest.write_text(json.dumps(told))
    assert await runtime.templates.list() == ()
    assert _folders(config) == []


async def test_a_damaged_template_is_made_again(runtime, config, world):
    made = await runtime.make_template()
    (config.template.dir / made.key / "manifest.json").write_text("{")
    await _started(runtime, "p")
    assert world.machines["p"].is_clone
    assert world.faults.calls.count("vm_checkpoint") == 2


async def test_a_damaged_template_is_told_of_once(runtime, config, caplog):
    for damage in (b"{", b""):
        made = await runtime.make_template()
        name = "manifest.json" if damage else "memory"
        (config.template.dir / made.key / name).write_bytes(damage)
        caplog.clear()
        assert await runtime.templates.list() == ()
        told = [one.getMessage() for one in caplog.records if one.levelname == "WARNING"]
        assert len(told) == 1, told
        assert "template" in told[0]
        assert "removed" in told[0]
        made = await runtime.make_template()
        (config.template.dir / made.key / name).write_bytes(damage)
        caplog.clear()
        await runtime.make_template()
        assert len([one for one in caplog.records if one.levelname == "WARNING"]) == 1


async def test_memory_can_lie_elsewhere(open_runtime, config, tmp_path):
    elsewhere = tmp_path / "memory"
    elsewhere.mkdir()
    template = structs.replace(config.template, memory_dir=str(elsewhere))
    async with open_runtime(structs.replace(config, template=template)) as runtime:
        made = await runtime.make_template()
        assert [made.memory] == list(elsewhere.iterdir())
        await runtime.templates.remove(made.key)
    assert list(elsewhere.iterdir()) == []


async def test_a_folder_that_others_can_write_to_is_not_trusted(runtime, config, world, caplog):
    config.template.dir.mkdir()
    config.template.dir.chmod(0o777)
    await _started(runtime, "p")
    assert not world.machines["p"].is_clone
    assert f"other users can write to {config.template.dir}" in caplog.text


async def test_one_in_use_cannot_be_removed_under_those_who_start(runtime, world):
    await runtime.make_template()
    world.connected.clear()
    starts = [asyncio.create_task(_started(runtime, f"p{number}")) for number in range(10)]
    await world.connected.wait()
    removed = asyncio.create_task(runtime.templates.remove(""))
    await asyncio.gather(*starts, removed)
    assert sum(machine.is_clone for machine in world.machines.values()) == 10
