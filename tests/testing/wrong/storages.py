"""Wrong stores."""

from __future__ import annotations

import contextlib
import itertools

from tests.testing.wrong import Wrong, table
from vc_core.spec import NotFound, Record, StoreListing, hookimpl
from vc_core.testing.mocks import MockStorage

STORAGES: Wrong = {}
breaks = table(STORAGES)


@breaks("test_a_run_folder_never_changes")
class Wanders(MockStorage):
    numbers = itertools.count()

    @hookimpl
    async def storage_run_dir(self, pod_id):
        return self.world.run_root / f"{pod_id}-{next(self.numbers)}"


@breaks("test_a_run_folder_is_private")
class Open(MockStorage):
    @hookimpl
    async def storage_create(self, pod_id, config):
        await super().storage_create(pod_id, config)
        (self.world.run_root / pod_id).chmod(0o755)


@breaks("test_a_new_pod_has_its_config")
class Plain(MockStorage):
    @hookimpl
    async def storage_create(self, pod_id, config):
        await super().storage_create(pod_id, config.encode("ascii", "ignore").decode())


@breaks("test_a_new_pod_has_a_run_folder")
class Late(MockStorage):
    @hookimpl
    async def storage_create(self, pod_id, config):
        await super().storage_create(pod_id, config)
        (self.world.run_root / pod_id).rmdir()


@breaks("test_an_id_is_given_once")
class Replaces(MockStorage):
    @hookimpl
    async def storage_create(self, pod_id, config):
        self.world.records.pop(pod_id, None)
        await super().storage_create(pod_id, config)


@breaks("test_pods_are_listed")
class Unsorted(MockStorage):
    @hookimpl
    async def storage_list(self):
        return StoreListing(pods=tuple(self.world.records))


@breaks("test_foreign_things_are_reported")
class Silent(MockStorage):
    @hookimpl
    async def storage_list(self):
        return StoreListing(pods=tuple(sorted(self.world.records)))


@breaks("test_containers_are_listed")
class EveryRecord(MockStorage):
    @hookimpl
    async def storage_containers(self, pod_id):
        return tuple(sorted({name for name, _ in self._of(pod_id) if name}))


@breaks("test_an_unknown_pod_has_no_containers")
class Empty(MockStorage):
    @hookimpl
    async def storage_containers(self, pod_id):
        return await super().storage_containers(pod_id) if pod_id in self.world.records else ()


@breaks("test_readers_share_and_a_writer_is_alone")
class AllAlone(MockStorage):
    @hookimpl
    async def storage_lock(self, pod_id, exclusive, timeout_s):
        return await super().storage_lock(pod_id, True, timeout_s)


@breaks("test_waiting_for_a_lock_ends")
class NoLock(MockStorage):
    @hookimpl
    async def storage_lock(self, pod_id, exclusive, timeout_s):
        return await super().storage_lock(pod_id, False, timeout_s)


@breaks("test_a_pod_may_go_while_somebody_waits")
class LocksAnything(MockStorage):
    @hookimpl
    async def storage_lock(self, pod_id, exclusive, timeout_s):
        self.world.records.setdefault(pod_id, {})
        return await super().storage_lock(pod_id, exclusive, timeout_s)


@breaks("test_a_record_is_replaced_whole")
class Overwrites(MockStorage):
    @hookimpl
    async def storage_put(self, pod_id, container_id, record, data):
        before = self._of(pod_id).get((container_id, record), "")
        await super().storage_put(pod_id, container_id, record, data + before[len(data) :])


@breaks("test_an_unknown_pod_keeps_no_records")
class Welcoming(MockStorage):
    @hookimpl
    async def storage_put(self, pod_id, container_id, record, data):
        self.world.records.setdefault(pod_id, {})[container_id, record] = data


@breaks("test_what_was_not_put_is_none")
class MakesUp(MockStorage):
    @hookimpl
    async def storage_get(self, pod_id, container_id, record):
        return await super().storage_get(pod_id, container_id, record) or "{}"


@breaks("test_an_unknown_pod_has_no_records")
class NoneForAll(MockStorage):
    @hookimpl
    async def storage_get(self, pod_id, container_id, record):
        with contextlib.suppress(NotFound):
            return await super().storage_get(pod_id, container_id, record)
        return "{}" if record is Record.PROCESS else ""


@breaks("test_each_record_has_a_place")
class OnePlace(MockStorage):
    @hookimpl
    async def storage_place(self, pod_id, container_id, record):
        return f"pod {pod_id}"


@breaks("test_a_container_goes_alone")
class TakesSiblings(MockStorage):
    @hookimpl
    async def storage_delete(self, pod_id, container_id):
        for name in await self.storage_containers(pod_id):
            await super().storage_delete(pod_id, name)
        if not container_id:
            await super().storage_delete(pod_id, "")


@breaks("test_deleting_twice_is_no_error")
class DeletesOnce(MockStorage):
    @hookimpl
    async def storage_delete(self, pod_id, container_id):
        self._of(pod_id)
        await super().storage_delete(pod_id, container_id)


@breaks("test_a_diagnosis_is_findings")
class Words(MockStorage):
    @hookimpl
    async def storage_diagnose(self):
        return ("all is well",)
