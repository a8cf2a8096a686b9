"""The contract suite of storage plugins."""

from __future__ import annotations

import asyncio
import stat
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from vc_core.spec import (
    AlreadyExists,
    Busy,
    Finding,
    NotFound,
    Record,
    StorageSpec,
    StoreListing,
    UnsupportedOperation,
)
from vc_core.testing.mocks import World
from vc_core.testing.rules import fails_with, rule, wired

_SHORT_S = 0.2


@dataclass
class StorageSubject:
    """A storage plugin under test.

    Attributes:
        make: creates an object on the same store, as another process would.
        litter: adds a foreign file to the store and returns a word that its problem must contain;
            None where nothing else can be added.
    """

    make: Callable[[], object]
    litter: Callable[[], str] | None = None
    world: World = field(default_factory=lambda: World(Path("/nowhere")))

    def store(self) -> StorageSpec:
        """Returns its operations, by a new object."""
        return wired(self.world, storage=self.make()).hooks


class StorageContract:
    """All rules of stores. Subclass it and override the fixture `subject`."""

    @pytest.fixture
    def subject(self) -> StorageSubject:
        """The plugin under test, provided by its author."""
        raise NotImplementedError("give a fixture `subject` that returns a StorageSubject")

    @rule("storage_run_dir", "Need not exist yet; never changes.")
    async def test_a_run_folder_never_changes(self, subject: StorageSubject) -> None:
        store = subject.store()
        before = await store.storage_run_dir(pod_id="p")
        assert before.is_absolute(), f"{before} is not absolute"
        await store.storage_create(pod_id="p", config="{}")
        after = await subject.store().storage_run_dir(pod_id="p")
        assert before == after, f"{before} became {after}"

    @rule("storage_run_dir", "Returns the private folder on this host for the pod's runtime files.")
    async def test_a_run_folder_is_private(self, subject: StorageSubject) -> None:
        store = subject.store()
        await store.storage_create(pod_id="p", config="{}")
        await store.storage_create(pod_id="q", config="{}")
        folder, other = [await store.storage_run_dir(pod_id=name) for name in "pq"]
        assert folder != other, "two pods have one"
        mode = stat.S_IMODE(folder.stat().st_mode)
        assert mode & 0o077 == 0, f"others may enter it: its mode is {mode:o}"

    @rule("storage_create", "Creates a pod with its POD_CONFIG in one step")
    async def test_a_new_pod_has_its_config(self, subject: StorageSubject) -> None:
        await subject.store().storage_create(pod_id="p", config='{"a": "ü\\n"}')
        found = await subject.store().storage_get(
            pod_id="p", container_id="", record=Record.POD_CONFIG
        )
        assert found == '{"a": "ü\\n"}', f"another object reads {found!r}"

    @rule("storage_create", "The run folder exists afterwards.")
    async def test_a_new_pod_has_a_run_folder(self, subject: StorageSubject) -> None:
        store = subject.store()
        await store.storage_create(pod_id="p", config="{}")
        folder = await store.storage_run_dir(pod_id="p")
        assert folder.is_dir(), f"{folder} is no folder"

    @rule("storage_create", "Raises AlreadyExists when the id is taken.")
    async def test_an_id_is_given_once(self, subject: StorageSubject) -> None:
        await subject.store().storage_create(pod_id="p", config="{}")
        await fails_with(AlreadyExists, subject.store().storage_create(pod_id="p", config="[]"))
        found = await subject.store().storage_get(
            pod_id="p", container_id="", record=Record.POD_CONFIG
        )
        assert found == "{}", "the first one's config was replaced"

    @rule("storage_list", "Returns all pods that have a POD_CONFIG.")
    async def test_pods_are_listed(self, subject: StorageSubject) -> None:
        for name in ("b", "a", "c"):
            await subject.store().storage_create(pod_id=name, config="{}")
        await subject.store().storage_delete(pod_id="c", container_id="")
        found = await subject.store().storage_list()
        assert found == StoreListing(pods=("a", "b")), f"it gave {found}"

    @rule("storage_list", "Foreign files are reported, never touched, and cause no error.")
    async def test_foreign_things_are_reported(self, subject: StorageSubject) -> None:
        if subject.litter is None:
            pytest.skip("nobody else can put anything into this store")
        await subject.store().storage_create(pod_id="p", config="{}")
        word = subject.litter()
        for _ in range(2):
            found = await subject.store().storage_list()
            assert found.pods == ("p",), f"the pods are {found.pods}"
            assert any(word in problem for problem in found.problems), (
                f"no problem names {word}: {found.problems}"
            )

    @rule(
        "storage_containers",
        "Returns the ids of a pod's containers that have a CONTAINER_CONFIG, sorted.",
    )
    async def test_containers_are_listed(self, subject: StorageSubject) -> None:
        store = subject.store()
        await store.storage_create(pod_id="p", config="{}")
        for name, record in (
            ("b", Record.CONTAINER_CONFIG),
            ("a", Record.CONTAINER_CONFIG),
            ("c", Record.PROCESS),
        ):
            await store.storage_put(pod_id="p", container_id=name, record=record, data="{}")
        found = await subject.store().storage_containers(pod_id="p")
        assert found == ("a", "b"), f"it gave {found}"

    @rule("storage_containers", "Raises NotFound for an unknown pod.")
    async def test_an_unknown_pod_has_no_containers(self, subject: StorageSubject) -> None:
        await fails_with(NotFound, subject.store().storage_containers(pod_id="none"))

    @rule("storage_lock", "Any number of readers share the lock; a writer has it alone.")
    async def test_readers_share_and_a_writer_is_alone(self, subject: StorageSubject) -> None:
        one, two = subject.store(), subject.store()
        await one.storage_create(pod_id="p", config="{}")
        held = await one.storage_lock(pod_id="p", exclusive=False, timeout_s=1)
        shared = await two.storage_lock(pod_id="p", exclusive=False, timeout_s=1)
        await fails_with(Busy, two.storage_lock(pod_id="p", exclusive=True, timeout_s=_SHORT_S))
        await held.release()
        await shared.release()
        written = await two.storage_lock(pod_id="p", exclusive=True, timeout_s=1)
        await fails_with(Busy, one.storage_lock(pod_id="p", exclusive=False, timeout_s=_SHORT_S))
        await written.release()

    @rule("storage_lock", "Raises Busy when it was not free within `timeout_s` seconds")
    async def test_waiting_for_a_lock_ends(self, subject: StorageSubject) -> None:
        store = subject.store()
        await store.storage_create(pod_id="p", config="{}")
        held = await store.storage_lock(pod_id="p", exclusive=True, timeout_s=1)
        await fails_with(
            Busy, subject.store().storage_lock(pod_id="p", exclusive=True, timeout_s=_SHORT_S)
        )
        waiting = asyncio.create_task(
            subject.store().storage_lock(pod_id="p", exclusive=True, timeout_s=20)
        )
        await asyncio.sleep(0)
        await held.release()
        await (await waiting).release()

    @rule(
        "storage_lock",
        "NotFound when there is no such pod, also when it was deleted during the wait.",
    )
    async def test_a_pod_may_go_while_somebody_waits(self, subject: StorageSubject) -> None:
        store = subject.store()
        await fails_with(NotFound, store.storage_lock(pod_id="none", exclusive=True, timeout_s=1))
        await store.storage_create(pod_id="p", config="{}")
        held = await store.storage_lock(pod_id="p", exclusive=True, timeout_s=1)
        waiting = asyncio.create_task(
            subject.store().storage_lock(pod_id="p", exclusive=True, timeout_s=20)
        )
        await asyncio.sleep(0)
        await store.storage_delete(pod_id="p", container_id="")
        await held.release()
        await held.release()
        await fails_with(NotFound, _outcome(waiting))

    @rule("storage_put", "A reader sees the old text or the new, also after a power cut.")
    async def test_a_record_is_replaced_whole(self, subject: StorageSubject) -> None:
        store = subject.store()
        await store.storage_create(pod_id="p", config="{}")
        for data in ("x" * 200_000, "short"):
            await store.storage_put(
                pod_id="p", container_id="c", record=Record.CONTAINER_STATE, data=data
            )
            found = await subject.store().storage_get(
                pod_id="p", container_id="c", record=Record.CONTAINER_STATE
            )
            assert found == data, f"a reader sees {len(found or '')} characters of {len(data)}"

    @rule("storage_put", "Raises NotFound for an unknown pod.")
    async def test_an_unknown_pod_keeps_no_records(self, subject: StorageSubject) -> None:
        store = subject.store()
        await fails_with(
            NotFound,
            store.storage_put(pod_id="none", container_id="", record=Record.POD_STATE, data="{}"),
        )
        assert (await store.storage_list()).pods == (), "it is a pod now"

    @rule("storage_get", "None when there is none, for example after a reboot.")
    async def test_what_was_not_put_is_none(self, subject: StorageSubject) -> None:
        store = subject.store()
        await store.storage_create(pod_id="p", config="{}")
        for container in ("", "c"):
            found = await store.storage_get(
                pod_id="p", container_id=container, record=Record.MOUNTS
            )
            assert found is None, f"it gave {found!r}"

    @rule("storage_get", "Raises NotFound for an unknown pod.")
    async def test_an_unknown_pod_has_no_records(self, subject: StorageSubject) -> None:
        await fails_with(
            NotFound,
            subject.store().storage_get(pod_id="none", container_id="", record=Record.POD_CONFIG),
        )

    @rule("storage_place", "Each record has another place.")
    async def test_each_record_has_a_place(self, subject: StorageSubject) -> None:
        store = subject.store()
        records = [("", Record.POD_CONFIG), ("", Record.POD_STATE), ("a", Record.CONTAINER_STATE)]
        records.append(("b", Record.CONTAINER_STATE))
        try:
            found = {
                await store.storage_place(pod_id="p", container_id=name, record=one)
                for name, one in records
            }
        except UnsupportedOperation:
            pytest.skip("it does not tell where its records lie")
        assert len(found) == len(records), f"two of {len(records)} records lie in one of {found}"

    @rule("storage_delete", "Removes a container, or the whole pod when `container_id` is empty.")
    async def test_a_container_goes_alone(self, subject: StorageSubject) -> None:
        store = subject.store()
        await store.storage_create(pod_id="p", config="{}")
        for name in ("a", "b"):
            await store.storage_put(
                pod_id="p", container_id=name, record=Record.CONTAINER_CONFIG, data="{}"
            )
        await store.storage_delete(pod_id="p", container_id="a")
        assert await store.storage_containers(pod_id="p") == ("b",), (
            "its sibling is gone, too, or it is still there"
        )
        await store.storage_delete(pod_id="p", container_id="")
        assert (await subject.store().storage_list()).pods == (), "the pod is still there"

    @rule("storage_delete", "What is not there is no error.")
    async def test_deleting_twice_is_no_error(self, subject: StorageSubject) -> None:
        store = subject.store()
        await store.storage_create(pod_id="p", config="{}")
        for container in ("none", "", ""):
            await store.storage_delete(pod_id="p", container_id=container)

    @rule("storage_diagnose", "Reports where the store is and whether it is writable.")
    async def test_a_diagnosis_is_findings(self, subject: StorageSubject) -> None:
        found = await subject.store().storage_diagnose()
        assert all(isinstance(one, Finding) for one in found), f"it gave {found}"


async def _outcome(task: asyncio.Task[object]) -> object:
    return await task
