"""The cause of a machine's unexpected end, for the pod's state and the errors of calls."""

from __future__ import annotations

import asyncio

from msgspec import structs

from vc_core.driver_kit.timeouts import timeout_after
from vc_core.engine.session.session import Session
from vc_core.engine.state.records import PodState
from vc_core.engine.state.states import State
from vc_core.engine.wiring import vm_calls
from vc_core.spec.errors import (
    AgentError,
    AgentRefusal,
    CannotExecute,
    HypervisorError,
    OperationError,
    OperationTimeout,
    StateError,
    VcError,
)
from vc_core.spec.values import VmPhase

ENDED = "the machine ended: "
"""The prefix of the reason of a pod whose machine ended by itself."""
_SOON_S = 2.0


async def true_state(session: Session) -> PodState:
    """Returns the pod's actual state, which may differ from the store; changes nothing."""
    if session.connection.driver_state is None:
        return session.state
    status = await session.hooks.vm_status(pod=session.pod)
    is_running = status.phase in vm_calls.ALIVE
    if session.is_alive and not is_running:
        reason = f"{ENDED}{status.reason or 'reason unknown'}"
        return PodState(State.STOPPED, reason, home=session.state.home)
    if not session.is_alive and is_running:
        return PodState(
            session.state.state, "a start or stop of it was interrupted", home=session.state.home
        )
    if session.state.state is State.RUNNING and status.phase is VmPhase.PAUSED:
        return structs.replace(session.state, state=State.PAUSED)
    if session.state.state is State.PAUSED and status.phase is VmPhase.RUNNING:
        return structs.replace(session.state, state=State.RUNNING)
    return session.state


async def explained(session: Session, error: VcError, exclusive: bool) -> VcError:
    """Returns the error to raise for one of a session, with the cause of the machine's end, if any.

    Args:
        session: the session in which the error was raised.
        error: the error.
        exclusive: whether the session changes the pod. Such a session of a stopped pod starts the
            machine, and the end of the earlier machine explains nothing.
    """
    if isinstance(error, StateError):
        if error.actual == State.STOPPED and session.state.state is State.STOPPED:
            error.reason = session.state.reason if session.state.reason.startswith(ENDED) else ""
        return error
    if isinstance(error, CannotExecute) or not isinstance(
        error, AgentError | HypervisorError | OperationTimeout
    ):
        return error
    if session.is_alive:
        reason = await _reason(session, error)
    else:
        reason = (
            "" if exclusive or session.state.state is not State.STOPPED else session.state.reason
        )
    return AgentError(reason, pod=session.pod.id) if reason else error


async def _reason(session: Session, error: VcError) -> str:
    status = await session.hooks.vm_status(pod=session.pod)
    if (
        status.phase is not VmPhase.ENDED
        and not isinstance(error, OperationTimeout)
        and await _ends_now(session)
    ):
        status = await session.hooks.vm_status(pod=session.pod)
    return f"{ENDED}{status.reason or 'reason unknown'}" if status.phase is VmPhase.ENDED else ""


async def _ends_now(session: Session) -> bool:
    """Returns whether the machine is ending: connections break shortly before it is gone.

    An agent that answers is proof that it is not, even if every answer is an error: a guest must
    not delay each call.
    """
    end = asyncio.ensure_future(session.hooks.vm_wait(pod=session.pod))
    tasks: list[asyncio.Future[object]] = [end]  # type: ignore[list-item]
    if session.connection.channel is not None:
        tasks.append(asyncio.ensure_future(session.hooks.agent_list_containers(pod=session.pod)))
    try:
        async with timeout_after(_SOON_S):
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if not end.done() and not tasks[-1].cancelled() and _is_answer(tasks[-1].exception()):
                return False
            await end
    except TimeoutError:
        return False
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return True


def _is_answer(error: BaseException | None) -> bool:
    """Returns whether the agent answered, given the exception that its call raised."""
    if isinstance(error, OperationError):
        return isinstance(error, AgentRefusal | CannotExecute)
    return error is None or isinstance(error, VcError)
