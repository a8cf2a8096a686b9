"""A wrong type is refused where it comes in, and poisons nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.engine.specs import container
from vc_core import blocking
from vc_core.defaults import Start
from vc_core.engine.state.states import State
from vc_core.spec import ContainerSpec, InvalidRequest, PodOptions, ProcessSpec, Resources, Rootfs

WRONG_PODS = [
    ({"start": "quick"}, "start: invalid enum value 'quick'"),
    ({"vcpus": "2"}, "vcpus: expected int or None, got str: '2'"),
    ({"vcpus": True}, "vcpus: expected int or None, got bool: True"),
    ({"memory_mib": 256.5}, "memory_mib: expected int or None, got float"),
    ({"hostname": b"a"}, "hostname: expected str, got bytes"),
    ({"annotations": {"a": 1}}, r"annotations\[\.\.\.\]: expected str, got int"),
    ({"annotations": ["a"]}, "annotations: expected object . null, got array"),
    (
        {"options": PodOptions(shared_shm_bytes="1")},
        "options.shared_shm_bytes: expected int, got str",
    ),
    ({"image": 5}, "image: expected str, got int"),
    ({"can_quiesce": 1}, "can_quiesce: expected bool or None, got int"),
]
WRONG_RUNS = [
    (("sleep", 0), {}, r"args\[1\]: expected str, got int"),
    (("sleep", b"1"), {}, "args"),
    (("sleep", object()), {}, "args: object is not a supported type"),
    (("sleep",), {"env": "A=B"}, "env: expected array, got str"),
    (("sleep",), {"env": [1]}, r"env\[0\]: expected str, got int"),
    (("sleep",), {"mounts": ["/tmp"]}, r"mounts\[0\]: expected object, got str"),
    (
        ("sleep",),
        {"resources": Resources(memory_bytes="1g")},
        "resources.memory_bytes: expected int, got str",
    ),
    (("sleep",), {"cwd": None}, "cwd: expected str, got NoneType"),
]


@pytest.mark.parametrize(("given", "told"), WRONG_PODS)
async def test_no_pod_is_made_of_wrong_types(runtime, world, given, told):
    with pytest.raises(InvalidRequest, match=told):
        await runtime.create("p", **given)
    assert world.records == {}


@pytest.mark.parametrize(("args", "given", "told"), WRONG_RUNS)
async def test_nothing_is_run_of_wrong_types(runtime, args, given, told):
    pod = await runtime.create("p")
    for verb in (pod.run, pod.launch):
        with pytest.raises(InvalidRequest, match=told):
            await verb(*args, **given)
    found = await pod.status()
    assert (found.state, found.containers) == (State.READY, ())
    await pod.delete()


async def test_no_wrong_type_reaches_a_container(runtime, world):
    pod = await runtime.create("p")
    made = await pod.create_container(container())
    await pod.start()
    calls = [
        (made.exec, ProcessSpec(args=("sleep", 1)), r"process\.args\[1\]: expected str, got int"),
        (made.update, Resources(pids="7"), r"limits\.pids: expected int, got str"),
        (made.annotate, {"a": 1}, "annotations"),
        (made.kill, "TERM", "signal: expected int, got str"),
        (made.stop, "soon", "grace_s: expected float, got str"),
        (pod.annotate, {1: "a"}, "annotations"),
        (
            pod.create_container,
            ContainerSpec(id="c2", rootfs=Rootfs(path="/usr"), process=ProcessSpec(args="sleep")),
            r"spec\.process\.args",
        ),
        (pod.fork, "2", "count: expected int, got str"),
        (pod.stop, None, "grace_s: expected float, got NoneType"),
        (pod.exec, 7, r"args\[0\]: expected str, got int"),
    ]
    before = dict(world.records["p"])
    for call, argument, told in calls:
        with pytest.raises(InvalidRequest, match=told):
            await call(argument)
    assert world.records["p"] == before
    assert (await pod.status()).state is State.RUNNING
    await pod.delete(force=True)


async def test_what_means_the_same_is_taken(runtime):
    pod = await runtime.create("p", start="cold", annotations={"a": "b"})
    assert (await pod.status()).config.start is Start.COLD
    spec = ContainerSpec(
        id="c", rootfs=Rootfs(path="/usr"), process=ProcessSpec(args=["sleep", Path("/x")])
    )
    found = await (await pod.create_container(spec)).spec()
    assert (found.rootfs.path, found.process.args) == (Path("/usr"), ("sleep", "/x"))
    await pod.stop(grace_s=1)
    await pod.delete()


def test_programs_without_asyncio_are_told_the_same(open_runtime):
    with blocking.Runtime(open_runtime(), blocking.Loop()) as runtime:
        with pytest.raises(InvalidRequest, match="start: invalid enum value 'quick'"):
            runtime.create("p", start="quick")
        with (
            runtime.pod("p") as pod,
            pytest.raises(InvalidRequest, match=r"args\[1\]: expected str, got int"),
        ):
            pod.run("sleep", 0)
        assert runtime.list().pods == ()
