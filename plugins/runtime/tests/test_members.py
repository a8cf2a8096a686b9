"""The removal of a container from a pod of others."""

from __future__ import annotations

from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from vc_runtime.guest_commands import _member_gone

from vc_core.config import Config, TemplateDefaults, Use
from vc_core.spec import AgentError, ContainerSpec, ProcessSpec, Rootfs, around
from vc_core.testing import mock_runtime
from vc_core.testing.mocks import World

USE = Use("mock", "mock", "mock", ("mock",), ("recording", "faults", "o"))


def _spec(name: str) -> ContainerSpec:
    return ContainerSpec(
        id=name, rootfs=Rootfs(path=Path("/")), process=ProcessSpec(args=("true",))
    )


@pytest.mark.parametrize("ends", [True, False])
async def test_the_machine_may_end_while_a_member_is_deleted(tmp_path, ends):
    world = World(tmp_path / "run")

    class Ending:
        @around
        @asynccontextmanager
        async def agent_remove_container(self, pod, container_id):
            if ends:
                world.machines[pod.id].end("the guest powered off")
            raise AgentError("Socket closed")
            yield

    config = Config(USE, template=TemplateDefaults(tmp_path / "templates"))
    async with mock_runtime(world, config, {("observer", "o"): Ending}) as runtime:
        pod = await runtime.create("p")
        for name in ("first", "member"):
            await pod.create_container(_spec(name))
        await pod.start()
        if ends:
            await _member_gone(pod, "member")
            assert [one.id for one in (await pod.status()).containers] == ["first"]
        else:
            with pytest.raises(AgentError, match="Socket closed"):
                await _member_gone(pod, "member")
        await pod.delete(force=True)
