"""Removes a pod that fails to open: a record is damaged, or a plugin is missing or fails.

Each step is taken whatever the result of earlier ones. A failure is reported and prevents only the
removal of folders with active mounts.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Iterator
from contextlib import AsyncExitStack, contextmanager
from typing import TypeVar

from msgspec import Struct, field

from vc_core.driver_kit import mountinfo
from vc_core.engine.clones import lost_machines
from vc_core.engine.clones.pool import Pool
from vc_core.engine.clones.templates import FILES
from vc_core.engine.host import bind_mounts, mount_calls
from vc_core.engine.host.container_disks import ContainerDisks
from vc_core.engine.state.records import PluginChoice, PodState, Store
from vc_core.engine.state.states import State
from vc_core.engine.wiring import vm_calls
from vc_core.engine.wiring.assemble import Wire
from vc_core.engine.wiring.catalog import Catalog
from vc_core.engine.wiring.wiring import Wiring
from vc_core.spec.errors import NotFound, PluginContractError, VcError
from vc_core.spec.events import EventSpec
from vc_core.spec.hooks import Hooks
from vc_core.spec.values import DriverState, PodRef

T = TypeVar("T")
_TERM_S = 2.0
log = logging.getLogger(__name__)


class DamagedPodRemover:
    """Removes pods that fail to open."""

    def __init__(
        self,
        storage: Hooks,
        catalog: Catalog,
        plugins: tuple[PluginChoice, ...],
        wire: Wire,
        pool: Pool,
        disks: ContainerDisks,
        lock_s: float,
    ) -> None:
        """Creates a `DamagedPodRemover`.

        Args:
            storage: operations of the store.
            catalog: the catalog of plugins.
            plugins: the configured plugins, for pods whose own choice is unreadable.
            wire: wires plugins.
            pool: the pool that a pod may have its machine from.
            disks: disks of containers.
            lock_s: seconds to wait for a pod's lock.
        """
        self.storage = storage
        self.catalog = catalog
        self.plugins = plugins
        self.wire = wire
        self.pool = pool
        self.disks = disks
        self._lock_s = lock_s

    async def remove(self, pod_id: str, error: Exception) -> None:
        """Ends and removes a pod; what is unreadable or unusable is logged.

        Args:
            pod_id: id of the pod.
            error: the error that the ordinary deletion raised.

        Raises:
            Busy: as storage_lock.
            StorageError: something is still mounted there, or the medium fails.
        """
        reason = without_remedy(error)
        log.warning("removed as it is: %s", reason)
        async with AsyncExitStack() as stack:
            try:
                lock = await self.storage.storage_lock(
                    pod_id=pod_id, exclusive=True, timeout_s=self._lock_s
                )
                stack.push_async_callback(lock.release)
            except PluginContractError as wrong:  # a broken lock must not prevent removal
                log.warning("removed without its lock: %s", wrong)
            except NotFound:  # removed meanwhile
                return
            pod = PodRef(id=pod_id, run_dir=await self.storage.storage_run_dir(pod_id=pod_id))
            problems = await _Removal(self, pod).run()
        for problem in problems:
            if problem != reason:
                log.warning("%s", problem)


class _Removal(Struct):
    """The removal of one pod, whose lock is held."""

    remover: DamagedPodRemover
    pod: PodRef
    problems: list[str] = field(default_factory=list)

    async def run(self) -> tuple[str, ...]:
        """Ends the pod's machine and removes all its files and records; returns the failures.

        Raises:
            StorageError: the store fails to remove it: something is still mounted there, or the
                medium fails.
        """
        store = Store(self.remover.storage, self.pod.id)
        config = await self._tried(store.pod_config())
        state = await self._tried(store.pod_state()) or PodState(State.STOPPED)
        driver = await self._tried(store.driver_state())
        plugins = config.plugins if config else self.remover.plugins
        wiring = self._wired(plugins)
        if wiring is not None and driver is not None:
            await self._end_known(wiring, driver)
        self.problems += await lost_machines.end(self.remover.catalog, self.pod, plugins)
        if state.process is not None:  # its plugin may be missing
            await state.process.kill(_TERM_S)
        await self._unbind(state)
        for held in state.devices:
            if wiring is None:
                self.problems.append(
                    f"the device {held.device.path} was not given back: its plugin cannot be used"
                )
            else:
                await self._tried(vm_calls.give_back(wiring, self.pod, held))
        with self._going_on():
            self.remover.disks.remove(self.pod.id)
        await self._forget(store)
        if wiring is not None:
            await wiring.notify(EventSpec.pod_deleted, pod=self.pod)
        return tuple(self.problems)

    def _wired(self, plugins: tuple[PluginChoice, ...]) -> Wiring | None:
        try:
            return self.remover.wire(plugins)
        except VcError as error:
            self.problems.append(f"the plugins that it was made with cannot be used: {error}")
            return None

    async def _end_known(self, wiring: Wiring, driver: DriverState) -> None:
        hooks = wiring.hooks
        for step in (
            hooks.vm_adopt(pod=self.pod, state=driver),
            hooks.vm_stop(pod=self.pod, grace_s=0),
            hooks.vm_destroy(pod=self.pod),
        ):
            await self._tried(step)

    async def _unbind(self, state: PodState) -> None:
        homes = {*self.remover.pool.homes(self.pod), *([state.home] if state.home else [])}
        for folder in (self.pod.run_dir, *homes):
            with self._going_on():
                bind_mounts.remove_all(folder / FILES)
        for home in homes:
            await self._tried(self.remover.pool.give_up(home))
        for one in reversed(mountinfo.below(self.pod.run_dir)):
            with self._going_on():
                while mount_calls.unmount(one.point):
                    pass  # mounts may be stacked

    async def _forget(self, store: Store) -> None:
        """Deletes the pod from the store; an error is ignored if the pod is gone anyway."""
        try:
            await store.delete()
        except PluginContractError as error:
            if self.pod.id in (await self.remover.storage.storage_list()).pods:
                raise
            self._note(error)

    async def _tried(self, step: Awaitable[T]) -> T | None:
        try:
            return await step
        except (VcError, OSError) as error:
            self._note(error)
            return None

    @contextmanager
    def _going_on(self) -> Iterator[None]:
        try:
            yield
        except (VcError, OSError) as error:
            self._note(error)

    def _note(self, error: Exception) -> None:
        self.problems.append(without_remedy(error))


def without_remedy(error: Exception) -> str:
    """Returns the text of an error without the remedy, which is being applied."""
    return str(error).partition("; 'vc pod delete")[0]
