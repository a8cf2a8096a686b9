"""Plugins of an older contract with today's engine: what docs/versioning.md promises."""

from __future__ import annotations

import logging

import pytest
from msgspec import structs

from tests.engine.specs import container
from tests.spec.contract_0_1 import MACHINES, TOLD, OldHypervisor, OldObserver
from vc_core.engine.wiring import plugin_checks
from vc_core.spec import (
    ALL_SPECS,
    FAMILIES,
    HypervisorError,
    InvalidRequest,
    Resources,
    UnsupportedOperation,
    hookimpl,
    hooks,
)
from vc_core.spec.hooks import RETIRED
from vc_core.testing import mock_config
from vc_core.testing.mocks import MockAgent
from vc_core.testing.mocks.world import MockMachine

OPTIONAL_THEN = {"vm_pause", "vm_resume", "vm_plug", "vm_unplug"}
SINCE = {"vm_resize", "vm_fingerprint", "vm_checkpoint"}


@pytest.fixture
def old_runtime(tmp_path, vc_world, vc_runtime, monkeypatch):
    """An old hypervisor and an old observer among mocks; the agent's guest lives in the old
    machines.
    """
    monkeypatch.setitem(RETIRED, "vm_follow_console", "vm_console gives what there is")
    monkeypatch.setattr(plugin_checks, "_PROBLEMS", {})
    MACHINES.clear()
    TOLD.clear()

    class Agent(MockAgent):
        world = vc_world

        async def _machine(self, pod):
            if pod.id not in MACHINES:
                vc_world.machines.pop(pod.id, None)
                raise HypervisorError("the machine is gone")
            old = MACHINES[pod.id]
            found = vc_world.machines.setdefault(pod.id, MockMachine())
            found.channels, found.shares = old.channels, dict.fromkeys(old.tags)
            return found

        @hookimpl
        async def agent_connect(self, pod, channel):
            await self._machine(pod)
            return await super().agent_connect(pod, channel)

    config = mock_config(tmp_path, "old")
    config = structs.replace(config, use=structs.replace(config.use, hypervisor="old"))
    plugins = {
        ("hypervisor", "old"): OldHypervisor,
        ("observer", "old"): OldObserver,
        ("agent", "mock"): Agent,
    }
    return lambda: vc_runtime(config, plugins)


async def test_a_pod_lives_its_whole_life(old_runtime, caplog):
    with caplog.at_level(logging.WARNING):
        async with old_runtime() as runtime:
            pod = await runtime.create("p")
            await pod.create_container(container())
            await pod.start()
            (found,) = (await pod.status()).containers
            assert found.state.value == "running"
            await pod.stop()
            await pod.delete()
    assert MACHINES == {}
    assert TOLD == ["p"]
    assert (
        "OldHypervisor.vm_follow_console is never called any more: vm_console gives what there is"
        in caplog.text
    )


async def test_what_came_later_is_refused_by_name(old_runtime):
    async with old_runtime() as runtime:
        pod = await runtime.create("p")
        await pod.start()
        with pytest.raises(UnsupportedOperation, match="vm_pause"):
            await pod.pause()
        with pytest.raises(InvalidRequest, match="cannot save a machine"):
            await pod.snapshot("s")
        with pytest.raises(InvalidRequest, match="the machine cannot grow"):
            await pod.create_container(container(resources=Resources(memory_bytes=64 << 20)))
        await pod.delete(force=True)


def test_without_being_retired_a_strange_operation_is_an_error(old_runtime, monkeypatch):
    monkeypatch.delitem(RETIRED, "vm_follow_console")
    (problem,) = plugin_checks.problems_of(OldHypervisor)
    assert problem.startswith("vm_follow_console is not a hook")


def test_what_is_retired_is_in_no_specification():
    known = {name for spec in ALL_SPECS for name in vars(spec)}
    assert set(hooks.RETIRED) & known == set()


def test_only_optional_operations_came_since():
    hypervisor = FAMILIES["hypervisor"]
    names = {name for name in vars(hypervisor) if not name.startswith("_")}
    assert names - set(vars(OldHypervisor)) - OPTIONAL_THEN == SINCE
    assert all(getattr(vars(hypervisor)[name], "__vc_optional__", False) for name in SINCE)
