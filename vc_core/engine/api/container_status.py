"""The status of a container, as shown to people."""

from __future__ import annotations

from typing import Self

from msgspec import Struct

from vc_core.engine.state.records import BlockRootfs, ContainerState, PodState, shown_state
from vc_core.engine.state.states import State
from vc_core.spec.values import ContainerSpec, ExitStatus, Health


class ContainerStatus(Struct, frozen=True):
    """The current status of a container.

    Attributes:
        id: unique in the pod.
        state: "paused" when the container runs and its pod is paused.
        exit: how its first process ended; None while it has not, or when the machine ended first.
        spec: its specification, with its current limits and annotations.
        block: its root file system, while that is a drive in the guest.
        restarts: number of restarts by the guest.
        health: result of its health checks.
        unanswered: what did not answer in time, as text for people; all other fields are then the
            last known values.
        started_ns: time of its last start, in nanoseconds since the epoch; 0 when it was
            never started.
    """

    id: str
    state: State
    exit: ExitStatus | None
    spec: ContainerSpec
    block: BlockRootfs | None = None
    restarts: int = 0
    health: Health = Health.NONE
    unanswered: str = ""
    started_ns: int = 0

    @classmethod
    def of(cls, pod: PodState, spec: ContainerSpec, state: ContainerState) -> Self:
        """Makes a status from the container's records."""
        shown = shown_state(pod, state)
        known = (state.block, state.restarts, state.health)
        return cls(spec.id, shown, state.exit, spec, *known, started_ns=state.started_ns)
