"""Events: what has happened, told to every plugin that listens.

Told after the store knows it. A listener that fails is logged and stops nobody. Events are not for
refusing or changing anything: surround an operation for that (vc_core.spec.around).
"""

from __future__ import annotations

from vc_core.spec.markers import event
from vc_core.spec.values import ExitStatus, PodRef


class EventSpec:
    """Events, in the past tense."""

    @event
    async def pod_created(self, pod: PodRef) -> None:
        """The pod is in the store; no machine yet."""

    @event
    async def pod_started(self, pod: PodRef) -> None:
        """The machine runs, the agent answers, the containers run."""

    @event
    async def pod_paused(self, pod: PodRef) -> None:
        """The machine's vCPUs are stopped."""

    @event
    async def pod_resumed(self, pod: PodRef) -> None:
        """The machine runs again."""

    @event
    async def pod_stopped(self, pod: PodRef, reason: str) -> None:
        """The machine has ended; `reason` says why, for people."""

    @event
    async def pod_deleted(self, pod: PodRef) -> None:
        """The pod is gone from the store."""

    @event
    async def container_created(self, pod: PodRef, container_id: str) -> None:
        """The container is in the store."""

    @event
    async def container_started(self, pod: PodRef, container_id: str) -> None:
        """Its first process runs."""

    @event
    async def container_stopped(self, pod: PodRef, container_id: str, status: ExitStatus) -> None:
        """Its first process has ended."""

    @event
    async def container_deleted(self, pod: PodRef, container_id: str) -> None:
        """The container is gone from the store."""
