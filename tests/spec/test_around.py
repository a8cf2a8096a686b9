"""Wrappers around operations, and what happens to an operation that is never begun."""

from __future__ import annotations

import asyncio
import gc
import warnings
from contextlib import asynccontextmanager

import pluggy
import pytest

from vc_core.spec import PodRef, around, hookimpl
from vc_core.spec.markers import PROJECT, operation


class Spec:
    @operation
    async def vm_start(self, pod: str) -> str:
        raise NotImplementedError


class Driver:
    @hookimpl
    async def vm_start(self, pod):
        return f"started {pod}"


def observer(notes: list[str], name: str, fails: bool = False):
    class Observer:
        @around
        @asynccontextmanager
        async def vm_start(self, pod):
            if fails:
                raise RuntimeError(name)
            notes.append(f"{name} in {pod}")
            try:
                yield
            finally:
                notes.append(f"{name} out")

    return Observer()


def board(*plugins) -> pluggy.PluginManager:
    manager = pluggy.PluginManager(PROJECT)
    manager.add_hookspecs(Spec)
    for plugin in plugins:
        manager.register(plugin)
    return manager


async def test_wrappers_surround_the_real_outcome():
    notes: list[str] = []
    manager = board(Driver(), observer(notes, "inner"), observer(notes, "outer"))
    assert await manager.hook.vm_start(pod="p") == "started p"
    assert notes == ["outer in p", "inner in p", "inner out", "outer out"]


@pytest.mark.parametrize("order", ["failing inside", "failing outside"])
async def test_a_wrapper_that_refuses_leaves_no_unawaited_operation(order):
    notes: list[str] = []
    good, bad = observer(notes, "good"), observer(notes, "bad", fails=True)
    manager = board(Driver(), *((bad, good) if order == "failing inside" else (good, bad)))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with pytest.raises(RuntimeError, match="bad"):
            await manager.hook.vm_start(pod="p")
        gc.collect()
    assert caught == []


async def test_a_task_cancelled_before_its_first_step_closes_all():
    manager = board(Driver(), observer([], "outer"))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        task = asyncio.create_task(manager.hook.vm_start(pod="p"))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        gc.collect()
    assert caught == []


def test_values_are_frozen(tmp_path):
    with pytest.raises(AttributeError):
        PodRef(id="p", run_dir=tmp_path).id = "q"  # type: ignore[misc]
