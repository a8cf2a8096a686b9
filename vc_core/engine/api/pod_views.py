"""Status of pods from their machines and guests, with a time limit on each that is asked."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable
from typing import Protocol, TypeVar

from msgspec import structs

from vc_core.engine.api import pod_listing
from vc_core.engine.api.container_status import ContainerStatus
from vc_core.engine.api.pod_listing import PodStatus
from vc_core.engine.lifecycle import containers
from vc_core.engine.session import pod_network
from vc_core.engine.session.session import Session
from vc_core.engine.session.sessions import Sessions
from vc_core.spec.errors import Busy, OperationError, PodDamaged, VcError
from vc_core.spec.values import VmPhase, VmStatus


class ViewedPod(Protocol):
    """The operations of a pod whose status is shown."""

    id: str

    async def status(self, ask_guest: bool = True) -> PodStatus:
        """See `Pod.status`."""

    async def close(self) -> None:
        """See `Pod.close`."""


T = TypeVar("T")

_CLEANING_S = 3.0


class Unanswered(Exception):
    """A pod or guest did not answer in time."""


async def within(limit_s: float, work: Awaitable[T]) -> T:
    """Returns the result of `work`, which is cancelled after `limit_s` seconds.

    Waits only briefly for the clean-up of cancelled work.

    Raises:
        Unanswered: the work takes longer.
    """
    task = asyncio.ensure_future(work)
    try:
        done, _ = await asyncio.wait([task], timeout=limit_s)
        if done:
            return task.result()
    finally:
        if not task.done():
            task.cancel()
            await asyncio.wait([task], timeout=_CLEANING_S)
    raise Unanswered(f"no answer within {limit_s:g} s")


async def status(sessions: Sessions, ask_guest: bool) -> PodStatus:
    """Returns a pod's status; the last known one, if it does not answer in time.

    Raises:
        NotFound: the pod does not exist.
        PodDamaged: its records are unreadable.
    """
    try:
        return await within(sessions.deadlines.view, _asked(sessions, ask_guest))
    except (Unanswered, Busy, OperationError) as error:
        if isinstance(error, PodDamaged):
            raise
        return await pod_listing.known(sessions.store, pod_listing.reason_of(error))


async def _asked(sessions: Sessions, ask_guest: bool) -> PodStatus:
    async with sessions.open(exclusive=False, explains=False) as session:
        return await asked(session, ask_guest)


async def asked(session: Session, ask_guest: bool) -> PodStatus:
    """Returns a pod's status from its records, its machine and, if `ask_guest`, its guest."""
    names = await session.store.containers()
    if ask_guest or not session.is_alive:
        states = await containers.observed_states(session)
    else:
        states = {name: await session.store.container_state(name) for name in names}
    machine = VmStatus(phase=VmPhase.ABSENT)
    if session.is_alive:
        machine = await session.hooks.vm_status(pod=session.pod)
    rows = [
        ContainerStatus.of(session.state, await session.store.container_spec(name), states[name])
        for name in names
    ]
    is_connected = await pod_network.is_connected(session)
    status = PodStatus.of(
        session.config, session.state, machine.pid, rows, is_connected=is_connected
    )
    return structs.replace(status, confinement=machine.confinement)


async def closed_after(pod: ViewedPod, ask_guest: bool) -> PodStatus:
    """Returns the status of a pod, and closes the connection to its guest."""
    try:
        return await pod.status(ask_guest)
    finally:
        with contextlib.suppress(VcError, Unanswered):  # the machine does not answer
            await within(_CLEANING_S, pod.close())
