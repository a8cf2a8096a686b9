"""Starts that a stand-in carries out: the records are as after any other start."""

from __future__ import annotations

import functools
from pathlib import Path

import pytest
from msgspec import structs

from tests.engine.specs import container
from vc_core.driver_kit import HostProcess
from vc_core.engine.api import delegated_start
from vc_core.engine.state.event_journal import Journal
from vc_core.engine.state.records import Store
from vc_core.engine.state.states import State
from vc_core.spec import NotFound, OciHook, OciHooks

LIMIT_S = 7.5


@pytest.fixture
async def created(runtime):
    """A pod that runs, and has a process of this host, with a container that waits."""
    pod = await runtime.create("p")
    await pod.start()
    store = Store(runtime.hooks, "p")
    process = HostProcess.this()
    await store.put_pod_state(structs.replace(await store.pod_state(), process=process))
    config = await store.pod_config()
    plugins = tuple(one for one in config.plugins if one.family != "observer")
    await store.put_pod_config(structs.replace(config, plugins=plugins))
    await pod.create_container(container())
    return store


def starting(runtime, is_started=True, observers=()):
    """Returns a start of the container of `created`, and with which limits it asks, in seconds."""
    asked = []

    async def ask(limit_s):
        asked.append(limit_s)
        return is_started

    use = structs.replace(runtime.config.use, observers=observers)
    deadlines = structs.replace(
        runtime.config.deadlines, operations={"agent_start_container": LIMIT_S}
    )
    config = structs.replace(runtime.config, use=use, deadlines=deadlines)
    arguments = ("p", "c1", ask, config, runtime.catalog)
    return functools.partial(delegated_start.start, *arguments), asked


async def test_the_records_and_the_journal_tell_of_the_start(runtime, created):
    start, asked = starting(runtime)
    assert await start()
    assert asked == [LIMIT_S]
    state = await created.container_state("c1")
    assert state.state is State.RUNNING
    assert state.started_ns > 0
    events = [one async for one in Journal(runtime.config.data.dir).events()]
    assert [one.container for one in events if one.event == "container_started"] == ["c1"]
    assert not await start(), "it runs already"
    assert asked == [LIMIT_S]


async def test_what_the_stand_in_does_not_start_is_unchanged(runtime, created):
    former = await created.container_state("c1")
    start, asked = starting(runtime, is_started=False)
    assert not await start()
    assert asked == [LIMIT_S]
    assert await created.container_state("c1") == former


async def test_what_needs_more_than_the_stand_in_is_not_asked_of_it(runtime, created):
    start, asked = starting(runtime)
    spec = await created.container_spec("c1")
    hooks = OciHooks(poststart=(OciHook(path=Path("/bin/true")),))
    await created.put_container_spec(structs.replace(spec, hooks=hooks))
    assert not await start()
    await created.put_container_spec(spec)
    pod = await created.pod_state()
    for other in (
        structs.replace(pod, is_saving=True),
        structs.replace(pod, state=State.PAUSED),
        structs.replace(pod, process=HostProcess(pod.process.pid, 1)),  # it has ended
    ):
        await created.put_pod_state(other)
        assert not await start()
    assert asked == []


async def test_a_start_that_observers_watch_is_not_asked_of_the_stand_in(runtime, created):
    start, asked = starting(runtime, observers=runtime.config.use.observers)
    assert runtime.config.use.observers
    assert not await start()
    assert asked == []


async def test_a_start_that_observers_of_the_pod_watch_is_not_asked_either(runtime, created):
    """They are those of the time when it was created."""
    start, asked = starting(runtime)
    pod = await runtime.create("other")
    config = await created.pod_config()
    plugins = (await Store(runtime.hooks, pod.id).pod_config()).plugins
    assert any(one.family == "observer" for one in plugins)
    await created.put_pod_config(structs.replace(config, plugins=plugins))
    assert not await start()
    assert asked == []


async def test_a_start_that_is_not_written_is_told(runtime, created, monkeypatch):
    async def full(*_):
        raise NotFound("the pod", "p")

    start, asked = starting(runtime)
    monkeypatch.setattr(Store, "put_container_state", full)
    with pytest.raises(NotFound):
        await start()
    assert asked == [LIMIT_S]
    lock = await runtime.hooks.storage_lock(pod_id="p", exclusive=True, timeout_s=1)
    await lock.release()
