"""Status and listing of pods by their records and the processes of their machines.

No plugin but that of the store is loaded for it, and no lock of a pod is taken.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable

from msgspec import Struct, field, structs

from vc_core.engine.api.container_status import ContainerStatus
from vc_core.engine.resources import vm_size
from vc_core.engine.state.records import ContainerState, PodConfig, PodState, Store
from vc_core.engine.state.states import ALIVE, State
from vc_core.spec.errors import NotFound, OperationError, VcError
from vc_core.spec.hooks import Hooks
from vc_core.spec.values import ContainerSpec, PortMapping, VmConfinement, VmSize

_AT_ONCE = 8  # more calls at once only delay each other

Ask = Callable[[str], Awaitable["PodStatus"]]
"""Returns the status of a pod by its id, from its machine."""

MakeAsk = Callable[[], Ask]
"""Returns how pods are asked. Called once, and only when a pod must be asked."""


class PodStatus(Struct, frozen=True):
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
        size = state.size or vm_size.demand(config, ())
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


class DamagedPod(Struct, frozen=True):
    """A pod whose records are unreadable. It can be deleted by force.

    Attributes:
        id: unique on this host.
        reason: what is unreadable, and the remedy, as text for people.
        state: "damaged".
    """

    id: str
    reason: str
    state: str = "damaged"


class Listing(Struct, frozen=True):
    """All pods, and problems found while listing them.

    Attributes:
        pods: sorted by id.
        damaged: pods whose records are unreadable.
        problems: other problems, one line each.
    """

    pods: tuple[PodStatus, ...]
    damaged: tuple[DamagedPod, ...] = ()
    problems: tuple[str, ...] = ()


def reason_of(error: Exception) -> str:
    """Returns why a pod gave no status, as text for people who see which pod it is."""
    return error.message if isinstance(error, OperationError) else str(error)


async def listing(storage: Hooks, make_ask: MakeAsk, ask_guests: bool = False) -> Listing:
    """Lists all pods by their records; then asks those whose records do not tell, concurrently.

    Pods that are deleted meanwhile are left out.

    Args:
        storage: operations of the store.
        make_ask: makes what asks a machine, and its guest with `ask_guests`.
        ask_guests: whether guests are asked for the state of their containers.

    Raises:
        VcError: of the store, when it cannot list its pods; of `make_ask`. Errors of one pod are
            in the list.
    """
    stored = await storage.storage_list()
    found: dict[str, PodStatus | DamagedPod] = {}
    unclear: list[str] = []

    async def read(pod_id: str) -> None:
        status = await recorded(Store(storage, pod_id), ask_guests)
        if status is None:
            unclear.append(pod_id)
        else:
            found[pod_id] = status

    await _each(stored.pods, read, found)
    if unclear:
        ask = make_ask()

        async def asked(pod_id: str) -> None:
            found[pod_id] = await ask(pod_id)

        await _each(unclear, asked, found)
    rows = [found[pod_id] for pod_id in stored.pods if pod_id in found]
    return Listing(
        tuple(one for one in rows if isinstance(one, PodStatus)),
        tuple(one for one in rows if isinstance(one, DamagedPod)),
        stored.problems,
    )


async def _each(
    pods: Iterable[str],
    look: Callable[[str], Awaitable[None]],
    found: dict[str, PodStatus | DamagedPod],
) -> None:
    """Looks at pods, some at once. Adds those that fail to `found`, without those that are gone."""
    remaining = iter(pods)

    async def work() -> None:
        for pod_id in remaining:
            try:
                await look(pod_id)
            except NotFound:
                continue
            except VcError as error:
                found[pod_id] = DamagedPod(pod_id, reason_of(error))

    await asyncio.gather(*(work() for _ in range(_AT_ONCE)))


async def recorded(store: Store, ask_guests: bool = False) -> PodStatus | None:
    """Returns a pod's status from its records and its process; None when these do not tell.

    They do not tell whether a network works, nor anything about a machine that has ended by
    itself, that is being saved, or that is no process of this host. Without a state, the host was
    rebooted, or another call is creating or deleting the pod: only who has the lock knows which.

    Args:
        store: its records.
        ask_guests: whether they do not tell about the containers in a running guest either.

    Raises:
        NotFound, PodDamaged: as the store.
    """
    config, state = await store.pod_config(), await store.recorded_pod_state()
    if state is None or state.is_saving or state.network is not None:
        return None
    process = state.process if state.state in ALIVE else None
    if state.state in ALIVE and (
        process is None or not process.is_alive() or await store.driver_state() is None
    ):
        return None
    containers = await _containers(store)
    asks = ask_guests and state.state is State.RUNNING
    if asks and any(container.is_in_guest for _, container in containers):
        return None
    return PodStatus.of(config, state, process.pid if process else 0, _shown(state, containers))


async def known(store: Store, unanswered: str) -> PodStatus:
    """Returns the last known status of a pod that did not answer.

    Args:
        store: its records.
        unanswered: what did not answer, as text for people.

    Raises:
        NotFound, PodDamaged: as the store.
    """
    config = await store.pod_config()
    state = await store.recorded_pod_state() or PodState(State.STOPPED)
    process = state.process
    pid = process.pid if process is not None and process.is_alive() else 0
    if process is not None and not pid and state.state in ALIVE:
        state = PodState(State.STOPPED, "the machine ended")
    containers = [
        structs.replace(one, unanswered=unanswered)
        for one in _shown(state, await _containers(store))
    ]
    return PodStatus.of(config, state, pid, containers, unanswered)


async def _containers(store: Store) -> list[tuple[ContainerSpec, ContainerState]]:
    """Returns the records of the containers, without those that are deleted meanwhile."""
    found = []
    for name in await store.containers():
        with contextlib.suppress(NotFound):
            found.append((await store.container_spec(name), await store.container_state(name)))
    return found


def _shown(
    pod: PodState, containers: Iterable[tuple[ContainerSpec, ContainerState]]
) -> list[ContainerStatus]:
    is_over = pod.state is State.STOPPED
    return [
        ContainerStatus.of(pod, spec, state.after_machine() if is_over else state)
        for spec, state in containers
    ]
