"""Starts a created container whose stand-in asks the guest.

Only the store is wired for that, and no channel is opened: a start of that kind takes a third of
the processor time. The records are changed under the pod's lock, as by `Container.start`.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable

from msgspec import structs

from vc_core.config import Config, load
from vc_core.engine.state.event_journal import Journal
from vc_core.engine.state.records import ContainerState, PodState, Store
from vc_core.engine.state.states import State
from vc_core.engine.wiring import assemble
from vc_core.engine.wiring.catalog import Catalog
from vc_core.spec.errors import NotFound
from vc_core.spec.events import EventSpec
from vc_core.spec.values import OciHooks, PodRef

Ask = Callable[[float], Awaitable[bool]]
"""Asks the stand-in, for some seconds; returns whether the container runs."""


async def start(
    pod_id: str,
    container_id: str,
    ask: Ask,
    config: Config | None = None,
    catalog: Catalog | None = None,
) -> bool:
    """Starts a container. Returns False, with nothing changed, if `Container.start` has to do it.

    That is so when the records are not those of a container that waits in a running machine, when
    it has hooks, when the pod has observers or some are configured, which may watch the calls to
    the agent, and when the stand-in does not start it.

    Args:
        pod_id: id of the pod.
        container_id: id of the container in it.
        ask: asks the stand-in. Called under the pod's lock, with the deadline of the agent's start.
        config: the configuration; None loads it.
        catalog: the plugins; None finds the installed ones.

    Raises:
        Busy: the pod's lock is not free in time.
        ConfigError, PluginError, PluginContractError: of the configuration or the store.
        OperationError: the store fails.
    """
    config = config if config is not None else load()
    if any(family == "observer" for family, _ in config.plugins()):
        return False
    journal = Journal(config.data.dir)
    wiring = assemble.wire_storage(config, catalog or Catalog(), journal)
    storage = wiring.hooks
    try:
        lock = await storage.storage_lock(
            pod_id=pod_id, exclusive=True, timeout_s=config.deadlines.lock
        )
    except NotFound:
        return False
    try:
        store = Store(storage, pod_id)
        state = await _waiting(store, container_id)
        if state is None or not await ask(config.deadlines.of("agent_start_container")):
            return False
        state = structs.replace(state, state=State.RUNNING, started_ns=time.time_ns())
        await store.put_container_state(container_id, state)
        about = PodRef(id=pod_id, run_dir=await storage.storage_run_dir(pod_id=pod_id))
        await wiring.notify(EventSpec.container_started, pod=about, container_id=container_id)
    finally:
        await lock.release()
    return True


async def _waiting(store: Store, container_id: str) -> ContainerState | None:
    """Returns the state of a container that waits in a running machine, of which nobody else is to
    be asked; None for any other.
    """
    try:
        pod = await store.recorded_pod_state()
        # The pod keeps the plugins that it was created with.
        own = (await store.pod_config()).plugins
        if pod is None or not _is_running(pod) or any(one.family == "observer" for one in own):
            return None
        spec = await store.container_spec(container_id)
        state = await store.container_state(container_id)
    except NotFound:
        return None
    waits = state.state is State.READY and state.is_in_guest and spec.hooks == OciHooks()
    return state if waits else None


def _is_running(pod: PodState) -> bool:
    """Returns whether the records say so, and the machine's process lives."""
    is_alive = pod.process is not None and pod.process.is_alive()
    return pod.state is State.RUNNING and not pod.is_saving and is_alive
