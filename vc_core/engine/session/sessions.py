"""Opens sessions of a pod: locks it, reads its records and brings them in line with its machine."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NoReturn

from vc_core.defaults import Deadlines
from vc_core.engine.session.exit_reason import explained, true_state
from vc_core.engine.session.remove_damaged import Salvage, without_remedy
from vc_core.engine.session.session import Board, Session, Shared, disconnect, settle
from vc_core.engine.state.records import PodConfig, Store, damaged
from vc_core.engine.wiring import assemble
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
    """Opens sessions of one pod; keeps the board between them, for as long as the machine is the same."""

    def __init__(self, runtime_hooks: Hooks, shared: Shared, pod_id: str) -> None:
        self._storage = runtime_hooks
        self._shared = shared
        self._pod_id = pod_id
        self._board: Board | None = None
        self._pod: PodRef | None = None
        self._guard = asyncio.Lock()

    @property
    def deadlines(self) -> Deadlines:
        """Limits of operations."""
        return self._shared.deadlines

    @property
    def store(self) -> Store:
        """The pod's records, for who looks without its lock."""
        return Store(self._storage, self._pod_id)

    @asynccontextmanager
    async def open(
        self, exclusive: bool, is_ending: bool = False, explains: bool = True
    ) -> AsyncIterator[Session]:
        """Locks the pod, reads it and brings it in line with the truth.

        Args:
            exclusive: whether anything is changed.
            is_ending: whether that is to end it or a container, which needs no space.
            explains: whether an error waits a moment for the machine's end, to tell of it.

        Raises:
            NotFound, Busy: as storage_lock.
            AgentError: what the block has raised, when that is because the machine has ended; says
                how.
        """
        lock = await self._storage.storage_lock(
            pod_id=self._pod_id, exclusive=exclusive, timeout_s=self._shared.deadlines.lock
        )
        try:
            session = await self._read(is_ending)
            if (
                session.state.is_saving and not exclusive
            ):  # who saved it was killed: it may stand still since
                await lock.release()
                async with self.open(exclusive=True):
                    pass
                lock = await self._storage.storage_lock(
                    pod_id=self._pod_id, exclusive=False, timeout_s=self._shared.deadlines.lock
                )
                session = await self._read(is_ending)
            if exclusive:
                await settle(session)
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

    @asynccontextmanager
    async def explaining(self) -> AsyncIterator[None]:
        """For what goes on without the pod's lock: an error tells how the machine ended, as in `open`."""
        try:
            yield
        except OperationError as error:
            await self.explain(error)

    async def explain(self, error: OperationError) -> NoReturn:
        """Raises the error, or one that tells how the machine ended; for generators, which no manager may suspend."""
        try:
            async with self.open(exclusive=False):
                raise error
        except NotFound:
            raise AgentError("the pod was deleted meanwhile", pod=self._pod_id) from error
        except Busy:  # somebody works on it for long
            raise error from None

    async def salvage(self, error: Exception) -> None:
        """Ends and removes the pod, which could not be deleted for this error; tells what cannot be read or used of it.

        Raises:
            Busy: as storage_lock.
            StorageError: something is mounted there still, or the medium fails.
        """
        reason = without_remedy(error)
        log.warning("removed as it is: %s", reason)
        limit_s = self._shared.deadlines.lock
        async with contextlib.AsyncExitStack() as stack:
            try:
                lock = await self._storage.storage_lock(
                    pod_id=self._pod_id, exclusive=True, timeout_s=limit_s
                )
                stack.push_async_callback(lock.release)
            except PluginContractError as wrong:  # a store without locks must not keep the pod
                log.warning("removed without its lock: %s", wrong)
            except NotFound:  # it was removed before that error
                return
            pod = PodRef(self._pod_id, await self._storage.storage_run_dir(pod_id=self._pod_id))
            problems = await Salvage(self._storage, self._shared, pod).remove()
        if self._board is not None:
            try:
                await self._board.wiring.hooks.agent_disconnect(pod=pod)
            except VcError as wrong:  # it is one to a machine that is gone
                log.warning("%s", wrong)
            self._board = None
        for problem in problems:
            if problem != reason:
                log.warning("%s", problem)

    async def close(self) -> None:
        """Ends the connection to the agent, if there is one; the pod goes on."""
        if self._board is not None and self._pod is not None:
            await disconnect(self._board, self._pod)
            self._board = None

    async def _read(self, is_ending: bool) -> Session:
        store = Store(self._storage, self._pod_id, is_ending)
        config = await store.pod_config()
        run_dir = await self._storage.storage_run_dir(pod_id=self._pod_id)
        self._pod = PodRef(self._pod_id, run_dir)
        machine = await store.driver_state()
        state = await store.pod_state()
        async with self._guard:  # tasks of this process that share the lock share the board, too
            if self._board is None:
                self._board = Board(self._wire(config), None, state.boot)
            if self._board.boot != state.boot:
                await disconnect(self._board, self._pod)
                self._board.boot = state.boot
            if machine is not None and self._board.machine != machine:
                try:
                    await self._board.wiring.hooks.vm_adopt(pod=self._pod, state=machine)
                except HypervisorError as error:
                    raise await store.driver_damaged(error.message) from error
            self._board.machine = machine
        capabilities = await assemble.check_combination(self._board.wiring, self._pod)
        return Session(
            self._pod,
            config,
            state,
            store,
            self._board,
            capabilities,
            self._shared,
        )

    def _wire(self, config: PodConfig) -> Wiring:
        """The board that the pod's config asks for: it remembers its plugins and their options."""
        try:
            return assemble.wire(
                self._shared.catalog, config.plugins, self._shared.deadlines, self._shared.journal
            )
        except (ConfigError, PluginError, PluginContractError) as error:
            raise damaged(
                self._pod_id, f"the plugins that it was made with cannot be used: {error}"
            ) from error
