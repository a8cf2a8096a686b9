"""The storage family: where pods are remembered between calls and between processes.

Not about root file systems. Data is JSON text that only the engine understands; a store keeps it,
whole or not at all. Every operation raises StorageError when the medium fails. None belongs to a
pod's machine: all work without one.
"""

from __future__ import annotations

from pathlib import Path

from vc_core.spec.markers import operation, optional_operation, unbounded_operation
from vc_core.spec.values import Finding, Record, StoreListing, StoreLock


class StorageSpec:
    """Operations named storage_*."""

    @operation
    async def storage_run_dir(self, pod_id: str) -> Path:
        """The private folder on this host for the pod's runtime files.

        Need not exist yet; never changes.
        """
        raise NotImplementedError

    @operation
    async def storage_create(self, pod_id: str, config: str) -> None:
        """Makes room for a pod, with its POD_CONFIG in it, in one step: a crash leaves all or
        nothing.

        The run folder exists afterwards. Raises AlreadyExists when the id is taken.
        """
        raise NotImplementedError

    @operation
    async def storage_list(self) -> StoreListing:
        """All pods that have a POD_CONFIG. What killed calls have left half made is taken away;
        foreign things are reported, never touched, never fatal.
        """
        raise NotImplementedError

    @operation
    async def storage_containers(self, pod_id: str) -> tuple[str, ...]:
        """The ids of a pod's containers that have a CONTAINER_CONFIG, sorted.

        Raises NotFound for an unknown pod.
        """
        raise NotImplementedError

    @unbounded_operation
    async def storage_lock(self, pod_id: str, exclusive: bool, timeout_s: float) -> StoreLock:
        """Locks a pod against other processes and other tasks of this one: readers share, a writer
        is alone.

        Raises Busy when it was not free within `timeout_s` seconds, NotFound when there is no such
        pod, also when it was deleted during the wait.
        """
        raise NotImplementedError

    @operation
    async def storage_put(self, pod_id: str, container_id: str, record: Record, data: str) -> None:
        """Writes one record, durably and atomically: a reader sees the old text or the new, also
        after a power cut.

        `container_id` is empty for the pod's own records. The run folder exists after a state was
        put, also when a reboot of the host has removed it. Raises NotFound for an unknown pod.
        """
        raise NotImplementedError

    @operation
    async def storage_get(self, pod_id: str, container_id: str, record: Record) -> str | None:
        """Reads one record; None when there is none, say after a reboot.

        Raises NotFound for an unknown pod.
        """
        raise NotImplementedError

    @optional_operation
    async def storage_place(self, pod_id: str, container_id: str, record: Record) -> str:
        """Where a record lies, as people would look for it: a path, a URL. Named when the record is
        damaged.

        Each record has another place. The pod and the record need not exist. Raises nothing.
        """
        raise NotImplementedError

    @operation
    async def storage_delete(self, pod_id: str, container_id: str) -> None:
        """Removes a container, or the whole pod when `container_id` is empty. What is not there is
        no error.

        Needs no free space, and no record that can be read: what is damaged is removed, too. A
        crash in the middle leaves something that can be listed and deleted again.
        """
        raise NotImplementedError

    @operation
    async def storage_diagnose(self) -> tuple[Finding, ...]:
        """What a user should know: where the store is, whether it can be written."""
        raise NotImplementedError
