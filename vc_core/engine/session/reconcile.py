"""Reconciles the store with the machine, and finishes interrupted calls."""

from __future__ import annotations

import logging

from msgspec import structs

from vc_core.engine.host import oci_hooks
from vc_core.engine.session import pod_network
from vc_core.engine.session.exit_reason import true_state
from vc_core.engine.session.session import Session
from vc_core.engine.session.teardown import end_machine
from vc_core.engine.state.records import ContainerState, PodState
from vc_core.engine.state.states import State
from vc_core.spec.errors import HypervisorError, OperationTimeout, VcError
from vc_core.spec.events import EventSpec
from vc_core.spec.values import Capability, ContainerSpec, VmPhase

log = logging.getLogger(__name__)


async def reconcile(session: Session, is_ending: bool = False) -> None:
    """Reconciles the store with the machine, and finishes interrupted calls.

    Args:
        session: the pod.
        is_ending: whether the pod or a container is being ended, which must also work when the
            machine does not answer; what is not finished then is left to the next call.
    """
    state = await true_state(session)
    if state.is_saving:
        try:
            state = await _end_save(session, state)
        except (HypervisorError, OperationTimeout) as error:
            if not is_ending:
                raise
            log.warning("the save of a killed process cannot be ended: %s", error)
    if session.is_alive and state.state is State.STOPPED:
        await end_machine(session, 0)
        await pod_network.disconnect(session)
        await mark_stopped(session, state.reason)
        await session.notify(EventSpec.pod_stopped, pod=session.pod, reason=state.reason)
    elif not session.is_alive and session.connection.driver_state is not None:
        await session.connection.close()  # may be left by a failed stop
        status = await session.hooks.vm_status(pod=session.pod)
        if status.phase is not VmPhase.ABSENT:
            await end_machine(session, 0)
            await session.put_driver_state()
        await forget_guest(session)
    elif state != session.state:
        await session.put_state(state)
    if not session.is_alive and session.state.network is not None:  # of an interrupted start
        await pod_network.disconnect(session)


async def _end_save(session: Session, state: PodState) -> PodState:
    """Ends a save whose process was killed; returns the state of the machine, which goes on."""
    is_running = state.state is State.RUNNING and session.is_alive
    if is_running and Capability.PAUSE in session.capabilities:
        # Saving may go on, and pause the machine at its end: vm_resume prevents that.
        await session.hooks.vm_pause(pod=session.pod)
        state = structs.replace(state, state=State.PAUSED)
    if state.state is State.PAUSED:
        await session.hooks.vm_resume(pod=session.pod)
        state = structs.replace(state, state=State.RUNNING)
        await _unquiesce(session)
    return structs.replace(state, is_saving=False)


async def _unquiesce(session: Session) -> None:
    """Tells the guest that it is the same machine, which it otherwise takes for granted later."""
    if Capability.QUIESCE not in session.capabilities:
        return
    try:
        await session.connection.open()
        await session.hooks.agent_unquiesce(pod=session.pod)
    except VcError as error:
        log.warning("the guest does not learn that a save has ended: %s", error)


async def forget_guest(session: Session) -> None:
    """Resets containers of an interrupted start to the state of their pod."""
    before = State.STOPPED if session.state.state is State.STOPPED else State.READY
    for container_id in await session.store.containers():
        state = await session.store.container_state(container_id)
        if state.is_in_guest or state.state is State.RUNNING:
            await _put_gone(session, container_id, state, before)
    clean = structs.replace(session.state, devices=(), shares=(), size=None, base=None)
    if clean != session.state:
        await session.put_state(clean)


async def mark_stopped(session: Session, reason: str) -> None:
    """Records that the machine is gone."""
    for container_id in await session.store.containers():
        state = await session.store.container_state(container_id)
        kept = (
            State.READY if state.state is State.READY and not state.is_in_guest else State.STOPPED
        )
        await _put_gone(session, container_id, state, kept)
    await session.put_state(PodState(State.STOPPED, reason, home=session.state.home))


async def run_poststop(session: Session, spec: ContainerSpec, state: ContainerState) -> None:
    """Runs the poststop hooks of a container that left the guest, if it had been started."""
    if state.owes_poststop:
        told = oci_hooks.state_of(spec, "stopped", 0)
        await oci_hooks.run(spec.hooks.poststop, told, session.deadlines.default)


async def _put_gone(session: Session, container_id: str, state: ContainerState, now: State) -> None:
    await session.store.put_container_state(
        container_id, structs.replace(state.gone(now), owes_poststop=False)
    )
    if state.owes_poststop:
        await run_poststop(session, await session.store.container_spec(container_id), state)
