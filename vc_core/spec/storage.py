"""The storage family: where the records of pods are kept between calls and between processes.

Not for root file systems. A record is JSON text that only the engine interprets; a store keeps it
whole or not at all. Every operation raises StorageError when the medium fails. No operation needs a
pod's machine.
"""

from __future__ import annotations

from pathlib import Path

from vc_core.spec.markers import operation, optional_operation, unbounded_operation
from vc_core.spec.values import Finding, Record, StoreListing, StoreLock


class StorageSpec:
    """The operations named storage_*."""

    @operation
    async def storage_run_dir(self, pod_id: str) -> Path:
        """Returns the private folder on this host for the pod's runtime files.

        Need not exist yet; never changes.
        """
        raise NotImplementedError

    @operation
    async def storage_create(self, pod_id: str, config: str) -> None:
        """Creates a pod with its POD_CONFIG in one step: a crash leaves all or nothing.

        The run folder exists afterwards. Raises AlreadyExists when the id is taken.
        """
        raise NotImplementedError

    @operation
    async def storage_list(self) -> StoreListing:
        """Returns all pods that have a POD_CONFIG.

        Removes what killed calls have left incomplete. Foreign files are reported, never touched,
        and cause no error.
        """
        raise NotImplementedError

    @operation
    async def storage_containers(self, pod_id: str) -> tuple[str, ...]:
        """Returns the ids of a pod's containers that have a CONTAINER_CONFIG, sorted.

        Raises NotFound for an unknown pod.
        """
        raise NotImplementedError

    @unbounded_operation
    async def storage_lock(self, pod_id: str, exclusive: bool, timeout_s: float) -> StoreLock:
        """Locks a pod against other processes and other tasks of this one.

        Any number of readers share the lock; a writer has it alone. Raises Busy when it was not
        free within `timeout_s` seconds, NotFound when there is no such pod, also when it was
        deleted during the wait.
        """
        raise NotImplementedError

    @operation
    async def storage_put(self, pod_id: str, container_id: str, record: Record, data: str) -> None:
        """Writes one record, durably and atomically.

        A reader sees the old text or the new, also after a power cut. `container_id` is empty for
        the pod's own records. The run folder exists after a state was put, also when a reboot of
        the host has removed it. Raises NotFound for an unknown pod.
        """
        raise NotImplementedError

    @operation
    async def storage_get(self, pod_id: str, container_id: str, record: Record) -> str | None:
        """Reads one record; None when there is none, for example after a reboot.

        Raises NotFound for an unknown pod.
        """
        raise NotImplementedError

    @optional_operation
    async def storage_place(self, pod_id: str, container_id: str, record: Record) -> str:
        """Returns where a record is stored, for people: a path or a URL.

        Named in the message when the record is damaged. Each record has another place. The pod and
        the record need not exist. Raises nothing.
        """
        raise NotImplementedError

    @operation
    async def storage_delete(self, pod_id: str, container_id: str) -> None:
        """Removes a container, or the whole pod when `container_id` is empty.

        What is not there is no error. Needs no free space and no readable record: damaged records
        are removed, too. After a crash in the middle, what is left can be listed and deleted again.
        """
        raise NotImplementedError

    @operation
    async def storage_diagnose(self) -> tuple[Finding, ...]:
        """Reports where the store is and whether it is writable."""
        raise NotImplementedError
