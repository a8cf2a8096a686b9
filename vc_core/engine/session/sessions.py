"""Opens sessions of a pod: locks it, reads its records and reconciles them with its machine."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NoReturn

from vc_core.defaults import Deadlines
from vc_core.engine.session.exit_reason import explained, true_state
from vc_core.engine.session.reconcile import reconcile
from vc_core.engine.session.session import Session
from vc_core.engine.state.records import PluginChoice, PodConfig, Store, damaged
from vc_core.engine.wiring import assemble
from vc_core.engine.wiring.assemble import Wire
from vc_core.engine.wiring.connection import Connection
from vc_core.engine.wiring.wiring import Wiring
from vc_core.spec.errors import (
    AgentError,
    Busy,
    ConfigError,
    HypervisorError,
    NotFound,
    OperationError,
    PluginContractError,
    PluginError,
    VcError,
)
from vc_core.spec.hooks import Hooks
from vc_core.spec.values import PodRef

log = logging.getLogger(__name__)


class Sessions:
    """Opens sessions of one pod.

    Keeps the connection between sessions, for as long as the machine and its plugins are the same.
    """

    def __init__(
        self,
        pod_id: str,
        storage: Hooks,
        wire: Wire,
        deadlines: Deadlines,
        connected: set[Sessions],
    ) -> None:
        """Creates a `Sessions`.

        Args:
            pod_id: id of the pod.
            storage: operations of the store.
            wire: wires the plugins of the pod.
            deadlines: deadlines of operations.
            connected: has this object while it has a connection to close.
        """
        self._connected = connected
        self.deadlines = deadlines
        self.pod_id = pod_id
        self._storage = storage
        self._wire = wire
        self._connection: Connection | None = None
        self._plugins: tuple[PluginChoice, ...] = ()  # that it is wired to
        self._guard = asyncio.Lock()

    @property
    def store(self) -> Store:
        """The pod's records, for reads without its lock."""
        return Store(self._storage, self.pod_id)

    @asynccontextmanager
    async def open(
        self, exclusive: bool, is_ending: bool = False, explains: bool = True
    ) -> AsyncIterator[Session]:
        """Locks the pod, reads its records and reconciles them with its machine.

        Args:
            exclusive: whether the session changes anything.
            is_ending: whether it ends the pod or a container, which must work without free space
                and with a machine that does not answer.
            explains: whether an error waits briefly for the machine's end, to include its cause.

        Raises:
            NotFound, Busy: as storage_lock.
            AgentError: an error of the block that was caused by the end of the machine; includes
                its cause.
        """
        lock = await self._storage.storage_lock(
            pod_id=self.pod_id, exclusive=exclusive, timeout_s=self.deadlines.lock
        )
        try:
            session = await self._read(is_ending)
            if (
                session.state.is_saving and not exclusive
            ):  # the saving process was killed: the machine may be paused since
                await lock.release()
                async with self.open(exclusive=True, is_ending=is_ending):
                    pass
                lock = await self._storage.storage_lock(
                    pod_id=self.pod_id, exclusive=False, timeout_s=self.deadlines.lock
                )
                session = await self._read(is_ending)
            if exclusive:
                await reconcile(session, is_ending)
            else:
                session.state = await true_state(session)
            try:
                yield session
            except VcError as error:
                told = await explained(session, error, exclusive) if explains else error
                if told is error:
                    raise
                raise told from error
        finally:
            await lock.release()

    async def rewire(self, session: Session, config: PodConfig) -> None:
        """Stores the configuration of an exclusive session's pod, and wires the plugins of that.

        The session goes on with them, and so does every later one, in any process.

        Raises:
            PodDamaged: they cannot be used.
        """
        await session.store.put_pod_config(config)
        found = await self._read(is_ending=False)
        session.config, session.connection = found.config, found.connection
        session.capabilities = found.capabilities

    @asynccontextmanager
    async def explaining(self) -> AsyncIterator[None]:
        """Adds the cause of the machine's end to errors, as `open` does, without the lock."""
        try:
            yield
        except OperationError as error:
            await self.explain(error)

    async def explain(self, error: OperationError) -> NoReturn:
        """Raises the error, or one with the cause of the machine's end.

        For generators, which a context manager must not suspend.
        """
        try:
            async with self.open(exclusive=False):
                raise error
        except NotFound:
            raise AgentError("the pod was deleted meanwhile", pod=self.pod_id) from error
        except Busy:  # another process holds the lock for long
            raise error from None

    async def close(self) -> None:
        """Ends the connection to the agent, if there is one; the pod keeps running."""
        if self._connection is not None:
            await self._connection.close()
        self._forget()

    async def close_deleted(self) -> None:
        """Ends all connections of this process to the pod, which is gone.

        The end of the runtime tries again what fails; that is logged.
        """
        for other in [one for one in self._connected if one.pod_id == self.pod_id]:
            await other.disconnect_deleted()

    async def disconnect_deleted(self) -> None:
        """Ends this connection to a pod that is gone; an error of the plugins is logged."""
        if self._connection is not None:
            try:
                await self._connection.hooks.agent_disconnect(pod=self._connection.pod)
            except VcError as error:
                log.warning("%s", error)
                return
        self._forget()

    def _forget(self) -> None:
        self._connection = None
        self._connected.discard(self)

    async def _read(self, is_ending: bool) -> Session:
        store = Store(self._storage, self.pod_id, is_ending)
        config = await store.pod_config()
        pod = PodRef(
            id=self.pod_id, run_dir=await self._storage.storage_run_dir(pod_id=self.pod_id)
        )
        driver_state = await store.driver_state()
        state = await store.pod_state()
        async with self._guard:  # tasks of this process that share the lock share the connection
            if self._connection is not None and self._plugins != config.plugins:
                await self._connection.close()
                self._connection = None
            if self._connection is None:
                wiring = self._wired(config)
                self._connection = Connection(wiring, pod, self.deadlines, boot=state.boot)
                self._plugins = config.plugins
                self._connected.add(self)
            connection = self._connection
            if connection.boot != state.boot:
                await connection.close()
                connection.boot = state.boot
            if driver_state is not None and connection.driver_state != driver_state:
                try:
                    await connection.hooks.vm_adopt(pod=pod, state=driver_state)
                except HypervisorError as error:
                    raise await store.driver_damaged(error.message) from error
            connection.driver_state = driver_state
        capabilities = await assemble.check_combination(connection.wiring, pod)
        return Session(pod, config, state, store, connection, capabilities, self.deadlines)

    def _wired(self, config: PodConfig) -> Wiring:
        """Wires the plugins that the pod was created with, with the options of that time."""
        try:
            return self._wire(config.plugins)
        except (ConfigError, PluginError, PluginContractError) as error:
            raise damaged(
                self.pod_id, f"the plugins that it was made with cannot be used: {error}"
            ) from error
