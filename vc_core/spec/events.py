"""Events: notifications, sent to every plugin that listens.

An event is sent after the change is stored. The failure of a listener is logged and
affects no other. Events do not refuse or change anything: surround an operation for
that (vc_core.spec.around).
"""

from __future__ import annotations

from vc_core.spec.markers import event
from vc_core.spec.values import ExitStatus, NetworkDenial, PodRef


class EventSpec:
    """The events, named in the past tense."""

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
        """The machine has ended; `reason` is the cause, as text for people."""

    @event
    async def pod_deleted(self, pod: PodRef) -> None:
        """The pod was removed from the store."""

    @event
    async def pod_denied(self, pod: PodRef, denial: NetworkDenial) -> None:
        """The pod's network has refused a destination or a name for the first time.

        Sent once for each destination, name and other reason, for at most 100 of them between two
        starts of the pod; not at once, but when somebody looks at the pod's denials, follows
        events, or when the machine ends. The target comes from the guest.
        """

    @event
    async def container_created(self, pod: PodRef, container_id: str) -> None:
        """The container is in the store."""

    @event
    async def container_started(self, pod: PodRef, container_id: str) -> None:
        """The container's first process runs."""

    @event
    async def container_stopped(self, pod: PodRef, container_id: str, status: ExitStatus) -> None:
        """The container's first process has ended."""

    @event
    async def container_deleted(self, pod: PodRef, container_id: str) -> None:
        """The container was removed from the store."""
