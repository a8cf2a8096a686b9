"""What people see of a container."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from vc_core.engine.state.records import BlockRootfs, ContainerState, PodState, shown_state
from vc_core.engine.state.states import State
from vc_core.spec.values import ContainerSpec, ExitStatus, Health


@dataclass(frozen=True)
class ContainerStatus:
    """What is true of a container now.

    Attributes:
        id: unique in the pod.
        state: "paused" while its pod is paused and it runs.
        exit: how its first process ended; None while it has not, or when the machine ended first.
        spec: what it was made from, with its limits and annotations as they are now.
        block: its root file system, while that is a drive in the guest.
        restarts: how often the guest has started it again.
        health: what its checks have found.
        unanswered: who has not answered in time, for people; all else is then as it was last known.
        started_ns: when it was last started, since the epoch; 0 when it never was.
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
        """As its records tell it."""
        shown = shown_state(pod, state)
        known = (state.block, state.restarts, state.health)
        return cls(spec.id, shown, state.exit, spec, *known, started_ns=state.started_ns)
