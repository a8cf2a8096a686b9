"""What the guard of a generic stand-in ends, and how long it tries."""

from __future__ import annotations

import asyncio
import contextlib
import types

import pytest
from vc_runtime import stand_in_guard

import vc_core
from vc_core.spec import AgentError, Busy, NotFound, StateError

_PAUSED = StateError("pod p", "attach to it", "paused", ["running"])
_STOPPED = StateError("pod p", "attach to it", "stopped", ["running"])


class _Pod:
    """Its own container and process, too. Each call raises the next error, the last one always."""

    def __init__(self, *errors):
        self.errors = list(errors)
        self.done = []
        self.orderly_s = 0

    async def _call(self, what):
        if self.errors:
            error = self.errors[0] if len(self.errors) == 1 else self.errors.pop(0)
            if error is not None:
                raise error
        self.done.append(what)

    async def get(self, pod_id):
        return self

    def container(self, container_id):
        return self

    async def process(self, may_wait, token):
        return self

    async def kill(self, number):
        await self._call(("kill", number))

    async def stop(self, grace_s, force=False):
        if not force:
            await asyncio.sleep(self.orderly_s)
        await self._call(("stop", force))


@pytest.fixture
def ending(monkeypatch):
    """Runs the guard's work with a pod; returns what was logged."""
    monkeypatch.setattr(stand_in_guard, "_AGAIN_S", 0.01)
    monkeypatch.setattr(stand_in_guard, "_ORDERLY_S", 0.1)
    logged = []
    monkeypatch.setattr(stand_in_guard.syslog, "syslog", lambda level, text: logged.append(text))

    async def run(pod, ends_machine, has_ended=False):
        @contextlib.asynccontextmanager
        async def opened():
            yield pod

        monkeypatch.setattr(vc_core, "Runtime", types.SimpleNamespace(open=opened))
        await stand_in_guard.end("p", "c", "t", ends_machine=ends_machine, has_ended=has_ended)
        return logged

    return run


@pytest.mark.parametrize("error", [_PAUSED, Busy("held"), AgentError("silent")])
async def test_a_process_is_killed_after_failures(ending, error):
    pod = _Pod(error, error, None)
    assert await ending(pod, ends_machine=False) == []
    assert pod.done == [("kill", 9)]


@pytest.mark.parametrize("ends_machine", [False, True])
@pytest.mark.parametrize("error", [NotFound("gone"), _STOPPED])
async def test_what_is_gone_is_left(ending, error, ends_machine):
    pod = _Pod(error)
    assert await ending(pod, ends_machine) == []
    assert pod.done == []


@pytest.mark.parametrize(
    ("limit", "error"), [("_HELD_S", _PAUSED), ("_HELD_S", Busy("held")), ("_FAILING_S", OSError())]
)
async def test_what_cannot_be_ended_is_logged(ending, monkeypatch, limit, error):
    monkeypatch.setattr(stand_in_guard, limit, 0.05)
    (told,) = await ending(_Pod(error), ends_machine=False)
    assert told.startswith("vc-runtime: process t in pod p could not be ended: ")


async def test_a_machine_ends_by_force_when_the_stand_in_was_killed(ending):
    pod = _Pod(AgentError("silent"), None)
    assert await ending(pod, ends_machine=True) == []
    assert pod.done == [("stop", True)]


async def test_a_machine_ends_in_order_after_its_process(ending):
    pod = _Pod()
    assert await ending(pod, ends_machine=True, has_ended=True) == []
    assert pod.done == [("stop", False)]


@pytest.mark.parametrize(("orderly_s", "errors"), [(60, [None]), (0, [AgentError("no"), None])])
async def test_a_machine_that_does_not_end_in_order_ends_by_force(ending, orderly_s, errors):
    pod = _Pod(*errors)
    pod.orderly_s = orderly_s
    assert await ending(pod, ends_machine=True, has_ended=True) == []
    assert pod.done == [("stop", True)]
