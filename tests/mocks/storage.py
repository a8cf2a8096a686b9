"""A store in a dictionary, with locks between tasks."""

from __future__ import annotations

import asyncio

from tests.mocks.world import World
from vc_core.spec import AlreadyExists, Busy, NotFound, Record, StorageSpec, StoreListing, hookimpl


class MockLock:
    """Readers share, a writer is alone; good for one loop."""

    def __init__(self) -> None:
        self.readers = 0
        self.is_written = False
        self.changed = asyncio.Condition()

    def is_free(self, exclusive: bool) -> bool:
        return not self.is_written and not (exclusive and self.readers)


class Held:
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


def mock_storage(world: World) -> type:
    class MockStorage(StorageSpec):
        @hookimpl
        async def storage_run_dir(self, pod_id):
            return world.run_root / pod_id

        @hookimpl
        async def storage_create(self, pod_id, config):
            if pod_id in world.records:
                raise AlreadyExists(f"pod {pod_id} exists already")
            world.records[pod_id] = {("", Record.POD_CONFIG): config}
            (world.run_root / pod_id).mkdir(parents=True, exist_ok=True)

        @hookimpl
        async def storage_list(self):
            return StoreListing(tuple(sorted(world.records)))

        @hookimpl
        async def storage_containers(self, pod_id):
            found = self._of(pod_id)
            return tuple(sorted(name for name, record in found if record == Record.CONTAINER_CONFIG))

        @hookimpl
        async def storage_lock(self, pod_id, exclusive, timeout_s):
            self._of(pod_id)
            lock = world.locks.setdefault(pod_id, MockLock())
            try:
                async with asyncio.timeout(timeout_s), lock.changed:
                    await lock.changed.wait_for(lambda: lock.is_free(exclusive))
                    if exclusive:
                        lock.is_written = True
                    else:
                        lock.readers += 1
            except TimeoutError as error:
                raise Busy(f"pod {pod_id} is busy") from error
            held = Held(lock, exclusive)
            if pod_id not in world.records:
                await held.release()
                raise NotFound(f"no pod {pod_id}")
            return held

        @hookimpl
        async def storage_put(self, pod_id, container_id, record, data):
            self._of(pod_id)[container_id, record] = data

        @hookimpl
        async def storage_get(self, pod_id, container_id, record):
            return self._of(pod_id).get((container_id, record))

        @hookimpl
        async def storage_delete(self, pod_id, container_id):
            if not container_id:
                world.records.pop(pod_id, None)
                return
            found = world.records.get(pod_id, {})
            for key in [key for key in found if key[0] == container_id]:
                del found[key]

        @hookimpl
        async def storage_diagnose(self):
            return ()

        @staticmethod
        def _of(pod_id):
            if pod_id not in world.records:
                raise NotFound(f"no pod {pod_id}")
            return world.records[pod_id]

    return MockStorage
