"""A store in a dictionary, with locks between tasks."""

from __future__ import annotations

from pathlib import Path

from vc_core.driver_kit.timeouts import timeout_after
from vc_core.spec import (
    AlreadyExists,
    Busy,
    Finding,
    NotFound,
    Record,
    StorageSpec,
    StoreListing,
    StoreLock,
    hookimpl,
)
from vc_core.testing.mocks.world import MockLock, World


class Held:
    """A lock that is held."""

    def __init__(self, lock: MockLock, exclusive: bool) -> None:
        self._lock, self._exclusive, self._is_held = lock, exclusive, True

    async def release(self) -> None:
        if not self._is_held:
            return
        self._is_held = False
        async with self._lock.changed:
            if self._exclusive:
                self._lock.is_written = False
            else:
                self._lock.readers -= 1
            self._lock.changed.notify_all()


class MockStorage(StorageSpec):
    """The mock storage plugin; its records and locks are in the world."""

    world: World

    @hookimpl
    async def storage_run_dir(self, pod_id: str) -> Path:
        return self.world.run_root / pod_id

    @hookimpl
    async def storage_create(self, pod_id: str, config: str) -> None:
        if pod_id in self.world.records:
            raise AlreadyExists(f"pod {pod_id} exists already")
        self.world.records[pod_id] = {("", Record.POD_CONFIG): config}
        (self.world.run_root / pod_id).mkdir(mode=0o700, parents=True, exist_ok=True)

    @hookimpl
    async def storage_list(self) -> StoreListing:
        return StoreListing(
            pods=tuple(sorted(self.world.records)), problems=tuple(self.world.litter)
        )

    @hookimpl
    async def storage_containers(self, pod_id: str) -> tuple[str, ...]:
        found = self._of(pod_id)
        return tuple(sorted(name for name, record in found if record == Record.CONTAINER_CONFIG))

    @hookimpl
    async def storage_lock(self, pod_id: str, exclusive: bool, timeout_s: float) -> StoreLock:
        self._of(pod_id)
        lock = self.world.locks.setdefault(pod_id, MockLock())
        try:
            async with timeout_after(timeout_s), lock.changed:
                await lock.changed.wait_for(lambda: lock.is_free(exclusive))
                if exclusive:
                    lock.is_written = True
                else:
                    lock.readers += 1
        except TimeoutError as error:
            raise Busy(f"pod {pod_id} is busy") from error
        held = Held(lock, exclusive)
        if pod_id not in self.world.records:
            await held.release()
            raise NotFound(f"no pod {pod_id}")
        return held

    @hookimpl
    async def storage_put(self, pod_id: str, container_id: str, record: Record, data: str) -> None:
        self._of(pod_id)[container_id, record] = data

    @hookimpl
    async def storage_get(self, pod_id: str, container_id: str, record: Record) -> str | None:
        return self._of(pod_id).get((container_id, record))

    @hookimpl
    async def storage_place(self, pod_id: str, container_id: str, record: Record) -> str:
        return f"mock:{pod_id}/{container_id}/{record}"

    @hookimpl
    async def storage_delete(self, pod_id: str, container_id: str) -> None:
        if not container_id:
            self.world.records.pop(pod_id, None)
            return
        found = self.world.records.get(pod_id, {})
        for key in [key for key in found if key[0] == container_id]:
            del found[key]

    @hookimpl
    async def storage_diagnose(self) -> tuple[Finding, ...]:
        return ()

    def _of(self, pod_id: str) -> dict[tuple[str, str], str]:
        if pod_id not in self.world.records:
            raise NotFound(f"no pod {pod_id}")
        return self.world.records[pod_id]


def mock_storage(world: World) -> type[MockStorage]:
    """Returns a plugin for one world."""
    return type("MockStorage", (MockStorage,), {"world": world})
