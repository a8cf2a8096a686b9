"""Pods from pods: saved as snapshots and restored, or forked directly. See docs/clones.md."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence

from msgspec import Struct, structs

from vc_core.engine.clones.snapshots import Snapshot, Snapshots
from vc_core.engine.lifecycle import checkpoint
from vc_core.engine.lifecycle.standstill import Standstill
from vc_core.engine.resources.host_files import HostFiles
from vc_core.engine.session.sessions import Sessions
from vc_core.engine.state.ids import fresh
from vc_core.engine.state.records import PodConfig, Store
from vc_core.engine.state.rollback import Rollback
from vc_core.spec.errors import InvalidRequest
from vc_core.spec.hooks import Hooks
from vc_core.spec.values import Checkpoint, PortMapping


class PodOps(Struct, frozen=True):
    """Operations of a runtime on pods that are known by id.

    Attributes:
        hooks: operations of the store.
        configured: returns the configuration of a pod from that of the saved one, the choice of a
            network, and ports, as `network_choice.of_copy`.
        check: refuses a configuration whose plugins do not support its network, as
            `network_choice.check`.
        sessions: returns the `Sessions` of a pod.
        register: creates a pod from its config, without starting its machine.
        delete: ends and removes a pod.
    """

    hooks: Hooks
    configured: Callable[[PodConfig, str, Sequence[PortMapping] | None], PodConfig]
    check: Callable[[PodConfig], Awaitable[None]]
    sessions: Callable[[str], Sessions]
    register: Callable[[PodConfig], Awaitable[None]]
    delete: Callable[[str], Awaitable[None]]


class Forks:
    """Saves pods and starts others from the saved state."""

    def __init__(
        self, pods: PodOps, snapshots: Snapshots, temporary: Snapshots, host: HostFiles
    ) -> None:
        """Creates a `Forks`; the saved state for a fork is in `temporary` only during the call."""
        self.snapshots = snapshots
        self._temporary = temporary
        self._host = host
        self._pods = pods

    async def save(self, sessions: Sessions, name: str) -> Snapshot:
        """Saves a running pod with its memory as a snapshot.

        Raises:
            AlreadyExists: there is a snapshot of this name.
            StateError: the pod does not run.
            InvalidRequest: something of the pod is not supported by snapshots; names it.
        """
        async with self.snapshots.making(name) as into, sessions.open(exclusive=True) as session:
            saved, _ = await checkpoint.save(session, into, name)
            return self.snapshots.complete(saved)

    async def restore(
        self, name: str, pod_id: str, ports: Sequence[PortMapping] = (), network: str = ""
    ) -> str:
        """Starts a pod from a snapshot, which publishes these ports; returns its id.

        Its network is like that of the saved pod, if `network` is empty.

        Raises:
            NotFound: there is no snapshot of this name.
            AlreadyExists: there is a pod of this id.
            InvalidRequest: something that the saved pod had is missing on this host; names it.
        """
        async with self.snapshots.using(name) as (saved, origin):
            config = self._pods.configured(saved.config, network, ports)
            return await self._start(saved, config, origin, pod_id)

    async def fork(
        self,
        sessions: Sessions,
        pod_ids: tuple[str, ...],
        ports: Sequence[PortMapping] | None = None,
        network: str = "",
    ) -> Standstill:
        """Starts pods that continue from the current state of a running one: all of them or none.

        Each of them publishes these ports; for None those of the pod, each on a free port of the
        host. Their networks are like that of the pod, if `network` is empty.

        Returns:
            How long the pod stood still.

        Raises:
            StateError: the pod does not run.
            AlreadyExists: there is a pod of one of these ids.
            InvalidRequest: something of the pod is not supported by snapshots; names it.
        """
        named = [port for port in ports or () if port.host_port]
        if named and len(pod_ids) > 1:
            raise InvalidRequest(
                f"port {named[0].host_port} cannot be published by {len(pod_ids)} pods; "
                "give the port of the pod alone, and each gets a free one"
            )
        await self._temporary.list()  # removes what killed forks have left
        name = fresh()
        async with self._temporary.making(name) as into:
            async with sessions.open(exclusive=True) as session:
                # First: what can be refused is refused before anything is saved.
                config = self._pods.configured(session.config, network, ports)
                await self._pods.check(config)
                saved, standstill = await checkpoint.save(session, into, name)
            outcomes = await asyncio.gather(
                *(self._start(saved, config, into, pod_id) for pod_id in pod_ids),
                return_exceptions=True,
            )
            failed = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
            if failed:
                for pod_id, outcome in zip(pod_ids, outcomes, strict=True):
                    if not isinstance(outcome, BaseException):
                        await self._pods.delete(pod_id)
                raise failed[0]
            return standstill

    def sessions(self, pod_id: str) -> Sessions:
        """Returns the `Sessions` of a forked pod."""
        return self._pods.sessions(pod_id)

    async def _start(
        self, saved: Snapshot, config: PodConfig, origin: Checkpoint, pod_id: str
    ) -> str:
        config = structs.replace(config, id=pod_id, hostname=pod_id, created_ns=time.time_ns())
        await self._pods.register(config)
        sessions = self._pods.sessions(pod_id)
        try:
            async with Rollback() as rollback:
                rollback.push(self._pods.hooks.storage_delete, pod_id=pod_id, container_id="")
                store = Store(self._pods.hooks, pod_id)
                for spec, state in saved.containers:
                    await store.put_container_spec(spec)
                    await store.put_container_state(spec.id, state.gone(state.state))
                async with sessions.open(exclusive=True) as session:
                    await checkpoint.start_from(session, self._host, saved, origin)
        finally:
            await sessions.close()
        return pod_id
