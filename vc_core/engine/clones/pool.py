"""The pool: clones started in advance. Any process takes one; a keeper process replaces it.

Each clone has a directory below that of the templates. `ready-<key>.json` in it means that the
machine is paused and not in use; the process that renames the file to `taken-<pod>.json` takes the
machine. A directory without either file belongs to a machine that is being started, or whose maker
was killed.
"""

from __future__ import annotations

import errno
import functools
import logging
import os
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from msgspec import Struct, structs

from vc_core.artifact_store import remove_tree
from vc_core.defaults import Deadlines
from vc_core.driver_kit.file_lock import LockTimeout, lock_file
from vc_core.driver_kit.ownership import private_folder, write_private_file
from vc_core.engine.clones import pool_signals, standalone_vm
from vc_core.engine.clones.standalone_vm import StandaloneVm
from vc_core.engine.clones.templates import FILES, NOTHING, TAGS, TemplateRequest, Templates
from vc_core.engine.host import bind_mounts
from vc_core.engine.state.ids import fresh
from vc_core.engine.state.records import PluggedShare, Store, decode, encode
from vc_core.engine.state.rollback import Rollback
from vc_core.engine.wiring import vm_calls
from vc_core.engine.wiring.catalog import Catalog
from vc_core.spec.errors import Busy, NotFound, PodDamaged, StorageError
from vc_core.spec.hooks import Hooks
from vc_core.spec.values import DriverState, PodRef, Share, VmSize

log = logging.getLogger(__name__)

_READY = "ready-"
_TAKEN = "taken-"
_TAKER = "taker"  # the run folder of the pod: another store may have a pod of the same name
_SUFFIX = ".json"
_LOCK = "keeper.lock"
_LOOK, _QUIT = b"!", pool_signals.QUIT


class Ready(Struct, frozen=True):
    """A paused machine that waits for a pod.

    Attributes:
        key: key of the template that it was cloned from.
        driver: the driver state with which it is taken over.
        base: its size at the start.
        shares: its shares, with empty folders.
    """

    key: str
    driver: DriverState
    base: VmSize
    shares: tuple[PluggedShare, ...]


class Waiting(Struct, frozen=True):
    """A machine of the pool, as shown to people.

    Attributes:
        id: id of the machine in the pool.
        key: key of its template.
        made_ns: time of its creation, in nanoseconds since the epoch.
    """

    id: str
    key: str
    made_ns: int


class Pool:
    """The waiting clones of all templates in one folder.

    Args:
        templates: templates that they are cloned from.
        catalog: the catalog of plugins.
        deadlines: deadlines of operations.
        revive: called when a machine was wanted and no process keeps the pool.
    """

    def __init__(
        self,
        templates: Templates,
        catalog: Catalog,
        deadlines: Deadlines,
        revive: Callable[[], object],
    ) -> None:
        self._templates = templates
        self._revive = revive
        self._catalog = catalog
        self._deadlines = deadlines
        self._seen: dict[
            str, StandaloneVm
        ] = {}  # waiting ones, of which this process is the keeper

    def list(self) -> tuple[Waiting, ...]:
        """Returns the waiting machines, the oldest first."""
        found = []
        for path in self._path.glob(f"*/{_READY}*{_SUFFIX}"):
            try:
                made_ns = path.stat().st_mtime_ns
            except FileNotFoundError:
                continue  # taken meanwhile
            found.append(Waiting(path.parent.name, _label(path, _READY), made_ns))
        return tuple(sorted(found, key=lambda one: one.made_ns))

    def homes(self, pod: PodRef) -> tuple[Path, ...]:
        """Returns the folders of machines that a pod with unreadable records has taken."""
        found = (path.parent for path in self._path.glob(f"*/{_TAKEN}{pod.id}{_SUFFIX}"))
        return tuple(folder for folder in found if _taker(folder) == str(pod.run_dir))

    async def take(
        self, hooks: Hooks, request: TemplateRequest, pod: PodRef
    ) -> tuple[Path, Ready] | None:
        """Takes a waiting machine for a pod, exclusively; returns its folder and its record.

        Returns None when no machine of this kind waits.
        """
        key = await self._templates.key(hooks, request)
        taken = None
        for waiting in self.list():
            folder = self._folder() / waiting.id
            if waiting.key == key and (found := _claim(folder, key, pod)) is not None:
                taken = folder, found
                break
        if not self.poke():
            self._revive()
        return taken

    async def give_up(self, folder: Path | None) -> None:
        """Ends a machine that a pod has taken, if it still runs, and removes its folder.

        Does nothing for None.
        """
        if folder is not None:
            await self._end(folder)

    async def make(self, hooks: Hooks, request: TemplateRequest) -> Waiting:
        """Adds a clone to the pool and returns it.

        Its agent was contacted before it was paused, so that the memory for that is loaded.
        """
        key = await self._templates.key(hooks, request)
        name = fresh()
        folder = self._folder() / name
        async with Rollback() as rollback:
            rollback.push(self._end, folder)
            for path in (folder, folder / NOTHING):
                path.mkdir(mode=0o700)
            if os.geteuid() == 0:
                bind_mounts.prepare(folder / FILES)
            machine = StandaloneVm(self._catalog, self._deadlines, request.plugins, _pod_of(folder))
            empty, files = (
                Share(tag="", path=folder / NOTHING, read_only=True),
                Share(tag="", path=folder / FILES, read_only=False),
            )
            wanted = (empty, files if os.geteuid() == 0 else empty)
            shares = tuple(
                structs.replace(one, tag=tag) for one, tag in zip(wanted, TAGS, strict=True)
            )
            async with self._templates.origin(hooks, request) as origin:
                await machine.start(
                    structs.replace(request.spec, shares=shares, origin=origin.checkpoint)
                )
            async with machine.connected():
                await machine.hooks.agent_quiesce(pod=machine.pod)
            await machine.hooks.vm_pause(pod=machine.pod)
            places = await vm_calls.shares_of(machine.hooks, machine.pod, len(shares))
            plugged = tuple(PluggedShare(*pair, ()) for pair in zip(shares, places, strict=True))
            base = VmSize(vcpus=request.spec.vcpus, memory_mib=request.spec.memory_mib)
            ready = Ready(key, await machine.put_driver_state(), base, plugged)
            half = folder / "half"
            write_private_file(half, encode(ready))
            half.rename(folder / f"{_READY}{key}{_SUFFIX}")
        self._seen[name] = machine
        return Waiting(name, key, folder.stat().st_mtime_ns)

    async def is_alive(self, waiting: Waiting) -> bool:
        """Returns whether the waiting machine is still there; remembers it for `end_lost`."""
        if waiting.id not in self._seen:
            pod = _pod_of(self._folder() / waiting.id)
            found = await standalone_vm.in_folder(self._catalog, self._deadlines, pod)
            if found is None:
                return False
            self._seen[waiting.id] = found
        return await self._seen[waiting.id].is_alive()

    async def end_lost(self) -> None:
        """Ends machines that this process has seen waiting and whose files were removed since.

        Only for the holder of the keeper's lock. No other process could find them.
        """
        waiting = {one.id for one in self.list()}
        for name in self._seen.keys() - waiting:
            machine, folder = self._seen.pop(name), self._path / name
            if not any(folder.glob(f"{_TAKEN}*")):
                await machine.end()
                bind_mounts.remove_all(folder / FILES)
                await remove_tree(folder)

    async def drop(self, waiting: Waiting) -> None:
        """Ends a waiting machine, unless a pod has taken it meanwhile."""
        folder = self._folder() / waiting.id
        taken = folder / f"{_TAKEN}{_SUFFIX}"
        try:
            (folder / f"{_READY}{waiting.key}{_SUFFIX}").rename(taken)
        except FileNotFoundError:
            return
        await self._end(folder)

    async def sweep(self, hooks: Hooks) -> None:
        """Ends machines that killed makers and takers left behind.

        Only for the holder of the keeper's lock, because no other process makes machines.

        Args:
            hooks: operations of the store with the pods.
        """
        for folder in [path for path in self._folder().iterdir() if path.is_dir()]:
            taken = next(folder.glob(f"{_TAKEN}*{_SUFFIX}"), None)
            is_waiting = any(folder.glob(f"{_READY}*{_SUFFIX}"))
            if is_waiting or (taken and await self._is_used(hooks, _label(taken, _TAKEN), folder)):
                continue
            await self._end(folder)

    # --- the keeper -------------------------------------------------------------------------------

    @asynccontextmanager
    async def keeping(self) -> AsyncIterator[Callable[[], Awaitable[bool]]]:
        """Holds the keeper's lock for the length of a block.

        Yields a function that waits for the next `poke` and returns whether to go on: not after
        the removal of the pool's folder.

        Raises:
            Busy: another process keeps this pool.
        """
        try:
            lock = await lock_file(self._folder() / _LOCK, exclusive=True, timeout_s=0)
        except LockTimeout as error:
            raise Busy(
                f"another process keeps the pool in {self._folder()}; 'vc pool stop' ends it"
            ) from error
        async with lock:
            path = self._folder() / pool_signals.FIFO
            handle = pool_signals.open_fifo(path)
            try:
                with pool_signals.removals(path.parent) as removed:
                    yield functools.partial(pool_signals.goes_on, handle, path, removed)
            finally:
                pool_signals.drain(handle)  # the next keeper must not read what this one was told
                os.close(handle)

    def poke(self, word: bytes = _LOOK) -> bool:
        """Tells the keeper to check the pool, or to quit; returns whether there is one.

        A keeper that has just been spawned reads the word when it begins.
        """
        try:
            handle = os.open(
                self._path / pool_signals.FIFO, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC
            )
        except FileNotFoundError:
            return False
        except OSError as error:
            if error.errno == errno.ENXIO:  # it was killed
                return False
            raise
        try:
            os.write(handle, word)
        finally:
            os.close(handle)
        return True

    async def stop(self, hooks: Hooks) -> bool:
        """Asks the keeper to end, then ends all machines that no pod has taken.

        This includes what a killed keeper has left. The result is whether there was a keeper.

        Args:
            hooks: operations of the store with the pods.

        Raises:
            Busy: the keeper did not end within the deadline of locks.
        """
        was_kept = self.poke(_QUIT)
        if not self._path.is_dir():
            return was_kept
        try:
            lock = await lock_file(
                self._folder() / _LOCK, exclusive=True, timeout_s=self._deadlines.lock
            )
        except LockTimeout as error:
            raise Busy(
                f"the process that keeps the pool in {self._path} has not ended yet; it ends as "
                "soon as the machine that it is starting is ready, so repeat 'vc pool stop'"
            ) from error
        async with lock:
            for waiting in self.list():
                await self.drop(waiting)
            await self.sweep(hooks)
        return was_kept

    # --- inside -----------------------------------------------------------------------------------

    async def _end(self, folder: Path) -> None:
        if folder.exists():
            await standalone_vm.end_left(self._catalog, self._deadlines, _pod_of(folder))
            bind_mounts.remove_all(folder / FILES)
            shutil.rmtree(folder)

    async def _is_used(self, hooks: Hooks, pod_id: str, folder: Path) -> bool:
        """Returns whether a pod has this machine, of this store or of another one."""
        if taker := _taker(folder):
            own = await hooks.storage_run_dir(pod_id=pod_id)
            if Path(taker) != own and Path(taker).exists():
                return True  # of another store, whose pods this one does not know
        return await self._is_home(hooks, pod_id, folder)

    async def _is_home(self, hooks: Hooks, pod_id: str, folder: Path) -> bool:
        """Returns whether a pod's records say that it has this machine.

        A pod that is taking a machine at the moment is locked.
        """
        try:
            limit = self._deadlines.lock
            lock = await hooks.storage_lock(pod_id=pod_id, exclusive=False, timeout_s=limit)
        except NotFound:
            return False
        try:
            return (await Store(hooks, pod_id).pod_state()).home == folder
        except PodDamaged:
            return True  # it may be: deleting that pod ends the machine
        finally:
            await lock.release()

    @property
    def _path(self) -> Path:
        """The folder of the machines, which need not exist."""
        return self._templates.defaults.dir / "pool"

    def _folder(self) -> Path:
        self._templates.folder()
        return private_folder(self._path, "template.dir")


def _claim(folder: Path, key: str, pod: PodRef) -> Ready | None:
    """Takes a waiting machine for a pod; returns None when another process was faster.

    A machine with a damaged record is left to `sweep`, which ends it.
    """
    taken = folder / f"{_TAKEN}{pod.id}{_SUFFIX}"
    try:
        (folder / f"{_READY}{key}{_SUFFIX}").rename(taken)
        (folder / _TAKER).write_text(str(pod.run_dir))
        return decode(taken.read_text(), Ready, str(taken))
    except FileNotFoundError:
        return None
    except (StorageError, UnicodeDecodeError) as error:
        log.warning("a machine of the pool is not used: %s", error)
        return None


def _taker(folder: Path) -> str:
    try:
        return (folder / _TAKER).read_text()
    except (OSError, UnicodeDecodeError):
        return ""


def _label(path: Path, prefix: str) -> str:
    return path.name.removeprefix(prefix).removesuffix(_SUFFIX)


def _pod_of(folder: Path) -> PodRef:
    return PodRef(id=f"pool-{folder.name}", run_dir=folder)
