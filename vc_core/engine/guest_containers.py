"""A container's life inside the guest, as steps with their undo. Callers hold the pod's lock."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import signal
from contextlib import AsyncExitStack

from vc_core.engine import shares
from vc_core.engine.identity import fresh
from vc_core.engine.records import ContainerState
from vc_core.engine.session import Session
from vc_core.engine.states import State
from vc_core.spec.errors import StateError
from vc_core.spec.events import EventSpec
from vc_core.spec.values import ContainerSpec, ExitStatus, GuestContainer


async def make(session: Session, spec: ContainerSpec) -> ContainerState:
    """Makes a container in the guest; its first process waits. Whatever fails, nothing of it is left."""
    async with AsyncExitStack() as undo:
        await session.connect()
        wanted = shares.wanted(session, spec)
        undo.push_async_callback(shares.release, session, spec.id)
        rootfs = await shares.acquire(session, wanted[0], spec.id)
        mounts = []
        for one in spec.mounts:
            mounts.append(await shares.mount(session, spec, one))
            undo.callback(shares.unbind, session, (mounts[-1],))
        token = fresh()
        named = dataclasses.replace(spec, hostname=spec.hostname or session.config.hostname)
        container = GuestContainer(named, token, rootfs, tuple(mounts))
        undo.push_async_callback(session.hooks.agent_remove_container, pod=session.pod, container_id=spec.id)
        await session.hooks.agent_create_container(pod=session.pod, container=container)
        state = ContainerState(State.READY, token, True, None, tuple(mounts))
        await session.store.put_container_state(spec.id, state)
        undo.pop_all()
    return state


async def start(session: Session, spec: ContainerSpec) -> ContainerState:
    """Lets the container run; makes it in the guest before when it is not there. Undone when it fails."""
    former = await session.store.container_state(spec.id)
    async with AsyncExitStack() as undo:
        undo.push_async_callback(_forget, session, spec.id, dataclasses.replace(former, is_in_guest=False, mounts=()))
        state = former
        if former.state is State.STOPPED and former.is_in_guest:
            await remove(session, spec.id, former)
            state = dataclasses.replace(former, is_in_guest=False)
        if not state.is_in_guest:
            state = await make(session, spec)
        await session.hooks.agent_start_container(pod=session.pod, container_id=spec.id)
        state = dataclasses.replace(state, state=State.RUNNING, exit=None)
        await session.store.put_container_state(spec.id, state)
        undo.pop_all()
    return state


async def _forget(session: Session, container_id: str, former: ContainerState) -> None:
    current = await session.store.container_state(container_id)
    await remove(session, container_id, current)
    await session.store.put_container_state(container_id, former)


async def stop(session: Session, spec: ContainerSpec, state: ContainerState, grace_s: float) -> ContainerState:
    """Asks the first process to end, kills all of the container after `grace_s` seconds, takes it out of the guest."""
    status = state.exit
    if state.is_in_guest:
        await session.connect()
        if state.state is State.RUNNING and status is None:
            status = await _end(session, spec.id, state.token, grace_s)
        await remove(session, spec.id, state)
    stopped = dataclasses.replace(state, state=State.STOPPED, is_in_guest=False, exit=status, mounts=())
    await session.store.put_container_state(spec.id, stopped)
    if status is not None and state.state is State.RUNNING:
        await session.board.wiring.notify(
            EventSpec.container_stopped, pod=session.pod, container_id=spec.id, status=status
        )
    return stopped


async def _end(session: Session, container_id: str, token: str, grace_s: float) -> ExitStatus:
    if grace_s > 0:
        try:
            await session.hooks.agent_signal(
                pod=session.pod, container_id=container_id, token=token, signal=signal.SIGTERM
            )
            async with asyncio.timeout(grace_s):
                return await session.hooks.agent_wait(pod=session.pod, container_id=container_id, token=token)
        except StateError:
            pass  # it has ended by itself just now: the wait below answers at once
        except TimeoutError:
            pass  # it had its time
    with contextlib.suppress(StateError):  # as above
        await session.hooks.agent_signal(pod=session.pod, container_id=container_id, token=token, signal=signal.SIGKILL)
    async with asyncio.timeout(session.deadlines.of("agent_wait")):
        return await session.hooks.agent_wait(pod=session.pod, container_id=container_id, token=token)


async def remove(session: Session, container_id: str, state: ContainerState) -> None:
    """Takes a container out of the guest and its folders out of the machine. May be called twice."""
    await session.hooks.agent_remove_container(pod=session.pod, container_id=container_id)
    await shares.release(session, container_id)
    shares.unbind(session, state.mounts)


async def truth(session: Session) -> dict[str, ContainerState]:
    """Every container's state as it is. Asks the guest when that can answer; changes nothing."""
    states = {name: await session.store.container_state(name) for name in await session.store.containers()}
    if session.state.state is State.STOPPED:
        return {name: _after_machine(state) for name, state in states.items()}
    if session.state.state is not State.RUNNING or not any(state.is_in_guest for state in states.values()):
        return states
    await session.connect()
    found = {one.id: one for one in await session.hooks.agent_list_containers(pod=session.pod)}
    for name, state in states.items():
        if state.state is State.RUNNING and (name not in found or found[name].exit is not None):
            status = found[name].exit if name in found else None
            states[name] = dataclasses.replace(state, state=State.STOPPED, exit=status)
    return states


def _after_machine(state: ContainerState) -> ContainerState:
    if state.state is State.READY and not state.is_in_guest:
        return state
    return dataclasses.replace(state, state=State.STOPPED, is_in_guest=False)


async def settle(session: Session) -> dict[str, ContainerState]:
    """Writes down what `truth` finds and tells of what has ended."""
    states = await truth(session)
    for name, state in states.items():
        stored = await session.store.container_state(name)
        if stored != state:
            await session.store.put_container_state(name, state)
            if state.exit is not None and stored.state is State.RUNNING:
                await session.board.wiring.notify(
                    EventSpec.container_stopped, pod=session.pod, container_id=name, status=state.exit
                )
    return states


async def of(session: Session, container_id: str) -> tuple[ContainerSpec, ContainerState]:
    """One container as it is, written down.

    Raises:
        NotFound: the pod has no such container.
    """
    spec = await session.store.container_spec(container_id)
    return spec, (await settle(session))[container_id]
