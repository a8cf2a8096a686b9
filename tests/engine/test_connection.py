"""The connection to a pod's agent: a task that is cancelled while it connects leaves none."""

from __future__ import annotations

import asyncio

import pytest

from tests.engine.specs import container
from vc_core.testing.mocks.agent import MockAgent


async def test_a_call_that_is_cancelled_just_when_it_has_connected_leaves_no_connection(
    open_runtime, world, monkeypatch
):
    """As a view that took too long, at the moment when the agent answered."""
    async with open_runtime() as first:
        await (await first.create("p")).start()
    world.connections = 0
    connect = MockAgent.agent_connect
    async with open_runtime() as second:
        pod = await second.get("p")
        call = asyncio.create_task(pod.create_container(container("c")))

        async def connects_and_cancels(self, pod, channel):
            info = await connect(self, pod, channel)
            call.cancel()
            return info

        connects_and_cancels.__dict__.update(connect.__dict__)
        monkeypatch.setattr(MockAgent, "agent_connect", connects_and_cancels)
        with pytest.raises(asyncio.CancelledError):
            await call
        monkeypatch.setattr(MockAgent, "agent_connect", connect)
        assert world.connections == 0
        await pod.delete(force=True)
    assert world.residue() == []
