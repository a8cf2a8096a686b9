"""Status and listings of pods, with a time limit on every pod and guest that is asked."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import Awaitable, Iterable
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from vc_core.engine.api.container_status import ContainerStatus
from vc_core.engine.lifecycle import containers
from vc_core.engine.session import pod_network
from vc_core.engine.session.session import Session
from vc_core.engine.state.records import PodConfig, PodState, Store
from vc_core.engine.state.states import ALIVE, State
from vc_core.spec.errors import NotFound, OperationError, VcError
from vc_core.spec.values import PortMapping, VmConfinement, VmPhase, VmSize, VmStatus


class ViewedPod(Protocol):
    """The operations of a pod whose status is shown."""

    id: str

    async def status(self, ask_guest: bool = True) -> PodStatus:
        """See `Pod.status`."""

    async def close(self) -> None:
        """See `Pod.close`."""


T = TypeVar("T")

_AT_ONCE = 8  # more calls at once only delay each other
_CLEANING_S = 3.0


@dataclass(frozen=True)
class PodStatus:
    """The current status of a pod.

    Attributes:
        id: unique on this host.
        state: its state.
        reason: why it is stopped, as text for people.
        pid: id of the machine's process, 0 when there is none.
        config: the configuration it was created with.
        containers: the status of its containers.
        size: current size of the machine; the configured size when there is none.
        unanswered: what did not answer in time, as text for people; all other fields are then the
            last known values.
        confinement: what keeps the machine's process from this host; empty when not asked.
        ports: published on the host, while it runs.
        is_connected: whether its network works; True for a pod without one.
    """

    id: str
    state: State
    reason: str
    pid: int
    config: PodConfig
    containers: tuple[ContainerStatus, ...]
    size: VmSize
    unanswered: str = ""
    confinement: VmConfinement = field(default_factory=VmConfinement)
    ports: tuple[PortMapping, ...] = ()
    is_connected: bool = True

    @classmethod
    def of(
        cls,
        config: PodConfig,
        state: PodState,
        pid: int,
        containers: Iterable[ContainerStatus],
        unanswered: str = "",
        is_connected: bool = True,
    ) -> PodStatus:
        """Makes a status from the pod's records."""
        size = state.size or VmSize(vcpus=config.vcpus, memory_mib=config.memory_mib)
        ports = () if state.network is None else state.network.ports
        return cls(
            config.id,
            state.state,
            state.reason,
            pid,
            config,
            tuple(containers),
            size,
            unanswered,
            ports=ports,
            is_connected=is_connected,
        )


@dataclass(frozen=True)
class DamagedPod:
    """A pod whose records are unreadable. It can be deleted by force.

    Attributes:
        id: unique on this host.
        reason: what is unreadable, and the remedy, as text for people.
        state: "damaged".
    """

    id: str
    reason: str
    state: str = "damaged"


@dataclass(frozen=True)
class Listing:
    """All pods, and problems found while listing them.

    Attributes:
        pods: sorted by id.
        damaged: pods whose records are unreadable.
        problems: other problems, one line each.
    """

    pods: tuple[PodStatus, ...]
    damaged: tuple[DamagedPod, ...] = ()
    problems: tuple[str, ...] = ()


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


def reason_of(error: Exception) -> str:
    """Returns why a pod gave no status, as text for people who see which pod it is."""
    return error.message if isinstance(error, OperationError) else str(error)


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
    return dataclasses.replace(status, confinement=machine.confinement)


async def known(store: Store, unanswered: str) -> PodStatus:
    """Returns a pod's status from the store, without the pod's lock and without asking its machine.

    Raises:
        NotFound, PodDamaged: as the store.
    """
    config, state = await store.pod_config(), await store.pod_state()
    process = state.process
    pid = process.pid if process is not None and process.is_alive() else 0
    if process is not None and not pid and state.state in ALIVE:
        state = PodState(State.STOPPED, "the machine ended")
    containers = []
    for name in await store.containers():
        with contextlib.suppress(NotFound):  # deleted meanwhile
            spec = await store.container_spec(name)
            one = ContainerStatus.of(state, spec, await store.container_state(name))
            containers.append(dataclasses.replace(one, unanswered=unanswered))
    return PodStatus.of(config, state, pid, containers, unanswered)


async def look(pods: Iterable[ViewedPod], ask_guests: bool) -> list[PodStatus | DamagedPod]:
    """Returns the status of pods, which are asked concurrently.

    Pods that are deleted meanwhile are left out.
    """
    room = asyncio.Semaphore(_AT_ONCE)

    async def one(pod: ViewedPod) -> PodStatus | DamagedPod | None:
        async with room:
            try:
                return await pod.status(ask_guests)
            except NotFound:
                return None
            except VcError as error:
                return DamagedPod(pod.id, reason_of(error))
            finally:
                with contextlib.suppress(VcError, Unanswered):  # the machine does not answer
                    await within(_CLEANING_S, pod.close())

    found = await asyncio.gather(*(one(pod) for pod in pods))
    return [status for status in found if status is not None]
