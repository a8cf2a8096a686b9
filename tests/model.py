"""Pods and containers as a table of states, and every call on them as a rule: what must succeed,
what must be refused.

Subclasses say against what it runs, and look for leaks.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from vc_core.engine.api.runtime import Runtime
from vc_core.engine.state.states import TRANSITIONS, State
from vc_core.spec import ContainerSpec, Resources, VcError

PICK = st.integers(0, 9)  # most often one that is there: see PodModel.pod and PodModel.key
NAMES = ("c0", "c1", "c2")
READY, RUNNING, PAUSED, STOPPED = State.READY, State.RUNNING, State.PAUSED, State.STOPPED
ALIVE = (RUNNING, PAUSED)


class PodModel(RuleBasedStateMachine):
    """What is expected: pod -> its state; (pod, container) -> the container's own state."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.pods: dict[str, State] = {}
        self.containers: dict[tuple[str, str], State] = {}
        self.runtime = self.open()

    # --- what a subclass gives --------------------------------------------------------------------

    def open(self) -> Runtime:
        raise NotImplementedError

    def spec(self, name: str, kind: int) -> ContainerSpec:
        raise NotImplementedError

    def is_disturbed(self) -> bool:
        """Whether the last call met a fault that was asked for; clears it."""
        return False

    # --- pods -------------------------------------------------------------------------------------

    @rule(pick=PICK)
    def create_pod(self, pick: int) -> None:
        pod = f"p{pick % 2}"
        if self._call(self.runtime.create(pod), pod not in self.pods):
            self.pods[pod] = READY

    @precondition(lambda self: self.pods)
    @rule(pick=PICK)
    def start_pod(self, pick: int) -> None:
        pod = self.pod(pick)
        if self._on_pod(pod, "start", self.pods.get(pod) in (READY, STOPPED)):
            self.pods[pod] = RUNNING
            for key in self._keys(pod):
                self.containers[key] = RUNNING

    @precondition(lambda self: self.pods)
    @rule(pick=PICK, force=st.booleans())
    def stop_pod(self, pick: int, force: bool) -> None:
        pod = self.pod(pick)
        if self._on_pod(pod, "stop", pod in self.pods, grace_s=0, force=force):
            self._stopped(pod)

    @precondition(lambda self: self.pods)
    @rule(pick=PICK)
    def pause_pod(self, pick: int) -> None:
        pod = self.pod(pick)
        if self._on_pod(pod, "pause", self.pods.get(pod) is RUNNING):
            self.pods[pod] = PAUSED

    @precondition(lambda self: self.pods)
    @rule(pick=PICK)
    def resume_pod(self, pick: int) -> None:
        pod = self.pod(pick)
        if self._on_pod(pod, "resume", self.pods.get(pod) is PAUSED):
            self.pods[pod] = RUNNING

    @precondition(lambda self: self.pods)
    @rule(pick=PICK, force=st.booleans())
    def delete_pod(self, pick: int, force: bool) -> None:
        pod = self.pod(pick)
        if self._on_pod(pod, "delete", pod in self.pods, force=force):
            del self.pods[pod]
            for key in self._keys(pod):
                del self.containers[key]

    # --- containers -------------------------------------------------------------------------------

    @precondition(lambda self: self.pods)
    @rule(pick=PICK, which=st.sampled_from(NAMES), kind=st.sampled_from([0, 1, 2, 2]))
    def create_container(self, pick: int, which: str, kind: int) -> None:
        pod, name = self.pod(pick), which
        may = self.pods.get(pod) in (READY, RUNNING, STOPPED) and (pod, name) not in self.containers
        if self._call(self._created(pod, self.spec(name, kind)), may):
            self.containers[pod, name] = READY

    @precondition(lambda self: self.containers)
    @rule(pick=PICK)
    def start_container(self, pick: int) -> None:
        pod, name = self.key(pick)
        may = self.pods.get(pod) is RUNNING and self.containers.get((pod, name)) in (READY, STOPPED)
        if self._on_container(pod, name, "start", may):
            self.containers[pod, name] = RUNNING

    @precondition(lambda self: self.containers)
    @rule(pick=PICK)
    def stop_container(self, pick: int) -> None:
        pod, name = self.key(pick)
        state = self.containers.get((pod, name))
        may = state is not None and (self.pods[pod] is not PAUSED or state is STOPPED)
        if self._on_container(pod, name, "stop", may, grace_s=0):
            self.containers[pod, name] = STOPPED

    @precondition(lambda self: self.containers)
    @rule(pick=PICK, force=st.booleans())
    def delete_container(self, pick: int, force: bool) -> None:
        pod, name = self.key(pick)
        state = self.containers.get((pod, name))
        is_quiet = state in (READY, STOPPED)
        may = (
            state is not None
            and (self.pods[pod] is not PAUSED or state is STOPPED)
            and (force or is_quiet)
        )
        if self._on_container(pod, name, "delete", may, force=force):
            del self.containers[pod, name]

    @precondition(lambda self: self.containers)
    @rule(pick=PICK, vcpus=st.integers(0, 4))
    def update_container(self, pick: int, vcpus: int) -> None:
        pod, name = self.key(pick)
        state = self.containers.get((pod, name))
        may = state is not None and (self.pods[pod] is not PAUSED or state is STOPPED)
        others = (
            8 if self.pods.get(pod) in ALIVE else 0
        )  # what its siblings use may leave no room: then either is right
        self._on_container(
            pod,
            name,
            "update",
            None if others and vcpus else may,
            Resources(cpu_quota_us=vcpus * 100_000),
        )

    def pod(self, pick: int) -> str:
        """One that exists, now and then one that may not."""
        known = sorted(self.pods)
        return known[pick % len(known)] if known and pick < 9 else "p1"

    def key(self, pick: int) -> tuple[str, str]:
        """A pod and its container that exist, now and then some that may not."""
        known = sorted(self.containers)
        return known[pick % len(known)] if known and pick < 9 else (self.pod(pick), "c2")

    # --- what must always be true -----------------------------------------------------------------

    @invariant()
    def the_store_tells_the_truth(self) -> None:
        pods, containers = self._seen()
        assert pods == self.pods
        shown = {
            key: PAUSED if state is RUNNING and self.pods[key[0]] is PAUSED else state
            for key, state in self.containers.items()
        }
        assert containers == shown

    def teardown(self) -> None:
        for pod in list(self.pods):
            self.loop.run_until_complete(self._deleted(pod))
        self.pods.clear()
        self.loop.run_until_complete(self.runtime.close())
        self.loop.close()

    # --- inside -----------------------------------------------------------------------------------

    def _seen(self) -> tuple[dict[str, State], dict[tuple[str, str], State]]:
        listing = self.loop.run_until_complete(self.runtime.list(ask_guests=True))
        assert listing.problems == ()
        pods = {pod.id: pod.state for pod in listing.pods}
        return pods, {(pod.id, one.id): one.state for pod in listing.pods for one in pod.containers}

    def _call(self, call: Coroutine[Any, Any, object], may: bool | None) -> bool:
        """Makes a call; whether it did what it should.

        A fault may leave all, nothing or half of it done.
        """
        refusal = None
        try:
            self.loop.run_until_complete(call)
        except VcError as error:
            refusal = error
        if self.is_disturbed():
            self._resync()
            return False
        assert may is None or may is (refusal is None), refusal or "this should have been refused"
        return refusal is None

    def _resync(self) -> None:
        """After a fault: whatever is there now must be reachable from what was, by the table of
        states.
        """
        pods, containers = self._seen()
        for pod, state in pods.items():
            before = self.pods.get(pod, READY)
            assert state is before or state in TRANSITIONS[before], (pod, before, state)
        self.pods = pods
        self.containers = {
            key: RUNNING if state is PAUSED else state for key, state in containers.items()
        }

    def _on_pod(self, pod: str, verb: str, may: bool, **arguments: object) -> bool:
        async def call() -> None:
            await getattr(await self.runtime.get(pod), verb)(**arguments)

        return self._call(call(), may)

    def _on_container(
        self, pod: str, name: str, verb: str, may: bool | None, *args: object, **arguments: object
    ) -> bool:
        async def call() -> None:
            container = (await self.runtime.get(pod)).container(name)
            await getattr(container, verb)(*args, **arguments)

        return self._call(call(), may if (pod, name) in self.containers else False)

    async def _created(self, pod: str, spec: ContainerSpec) -> None:
        await (await self.runtime.get(pod)).create_container(spec)

    async def _deleted(self, pod: str) -> None:
        await (await self.runtime.get(pod)).delete(force=True)

    def _stopped(self, pod: str) -> None:
        """A machine that ends takes with it what was in its guest."""
        was_alive = self.pods[pod] in ALIVE
        self.pods[pod] = STOPPED
        for key in self._keys(pod):
            if was_alive or self.containers[key] is not READY:
                self.containers[key] = STOPPED

    def _keys(self, pod: str) -> list[tuple[str, str]]:
        return [key for key in self.containers if key[0] == pod]
