"""What a call raises when its machine has ended, or when it has not and something else failed."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import pytest
from msgspec import structs

from tests.engine.specs import container
from vc_core.engine.session import exit_reason
from vc_core.spec import (
    AgentError,
    AgentRefusal,
    HypervisorError,
    InvalidRequest,
    NotFound,
    ProcessSpec,
    StateError,
    around,
)

_TRUE = ProcessSpec(args=("true",))


async def _running(runtime):
    pod = await runtime.create("p")
    made = await pod.create_container(container())
    await pod.start()
    return pod, made


def _watched(open_runtime, config, observer):
    use = structs.replace(config.use, observers=("o",))
    return open_runtime(structs.replace(config, use=use), {("observer", "o"): observer})


async def test_a_connection_that_breaks_a_moment_before_the_machine_is_gone(
    open_runtime, world, config
):
    class Breaking:
        @around
        @asynccontextmanager
        async def agent_exec(self, pod):
            world.faults.calls.append("broken")
            asyncio.get_running_loop().call_later(
                0.1, world.machines[pod.id].end, "somebody pulled the plug"
            )
            raise AgentError("Socket closed")
            yield

        @around
        @asynccontextmanager
        async def agent_list_containers(self, pod):
            if "broken" in world.faults.calls:
                raise AgentError("Socket closed")
            yield

    async with _watched(open_runtime, config, Breaking) as runtime:
        pod, made = await _running(runtime)
        with pytest.raises(
            AgentError, match=r"^pod p: the machine ended: somebody pulled the plug$"
        ):
            await made.exec(_TRUE)
        with pytest.raises(
            StateError, match="is stopped: the machine ended: somebody pulled the plug; to execute"
        ):
            await made.exec(_TRUE)
        await pod.delete()


async def test_an_error_of_a_machine_that_lives_stays(open_runtime, config):
    class Refusing:
        @around
        @asynccontextmanager
        async def agent_exec(self):
            raise AgentError("no")
            yield

    async with _watched(open_runtime, config, Refusing) as runtime:
        pod, made = await _running(runtime)
        with pytest.raises(AgentError, match=r"^pod p: no"):
            await made.exec(_TRUE)
        await pod.delete()


@pytest.mark.parametrize("answer", [AgentRefusal("no"), NotFound("no"), InvalidRequest("no")])
async def test_an_agent_that_answers_with_an_error_keeps_no_call_waiting(
    open_runtime, config, monkeypatch, answer
):
    is_wrong = False

    class Wrong:
        @around
        @asynccontextmanager
        async def agent_exec(self):
            nonlocal is_wrong
            is_wrong = True
            raise AgentError("broken")
            yield

        @around
        @asynccontextmanager
        async def agent_list_containers(self):
            if is_wrong:
                raise answer
            yield

    monkeypatch.setattr(exit_reason, "_SOON_S", 3600)
    async with _watched(open_runtime, config, Wrong) as runtime:
        pod, made = await _running(runtime)
        with pytest.raises(AgentError, match=r"^pod p: broken"):
            async with asyncio.timeout(60):
                await made.exec(_TRUE)
        is_wrong = False
        await pod.delete()


async def test_a_channel_that_cannot_be_closed_does_not_hide_why_there_is_no_connection(
    open_runtime, config, caplog
):
    is_broken = False

    class Unreachable:
        @around
        @asynccontextmanager
        async def agent_connect(self):
            if is_broken:
                raise AgentError("nobody answers")
            yield

        @around
        @asynccontextmanager
        async def vm_close_channel(self):
            if is_broken:
                raise HypervisorError("the monitor does not answer")
            yield

    caplog.set_level("INFO", "vc_core.engine.wiring")
    async with _watched(open_runtime, config, Unreachable) as runtime:
        pod, made = await _running(runtime)
        await pod.close()
        is_broken = True
        with pytest.raises(AgentError, match="nobody answers"):
            await made.exec(_TRUE)
        is_broken = False
        await pod.delete()
    assert (
        "a channel of pod p could not be closed: pod p: the monitor does not answer" in caplog.text
    )


async def test_who_waits_in_a_pod_that_is_deleted_is_told(open_runtime, config):
    is_asked = asyncio.Event()

    class Watching:
        @around
        @asynccontextmanager
        async def agent_wait(self):
            is_asked.set()
            yield

    async with _watched(open_runtime, config, Watching) as runtime:
        pod, made = await _running(runtime)
        waiting = asyncio.create_task((await made.process()).wait())
        await is_asked.wait()
        await pod.delete(force=True)
        with pytest.raises(AgentError, match="the pod was deleted meanwhile"):
            await waiting
