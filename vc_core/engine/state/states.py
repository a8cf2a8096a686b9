"""The states of pods and containers, and the table of transitions.

ready -> running <-> paused; each of them -> stopped; stopped -> running. From `stopped` a pod boots
again, and a container is created again in the guest.
"""

from __future__ import annotations

import enum
from collections.abc import Collection

from vc_core.spec.errors import StateError


class State(enum.StrEnum):
    """The state of a pod or container."""

    READY = "ready"
    RUNNING = "running"
    PAUSED = "paused"
    STOPPED = "stopped"


TRANSITIONS: dict[State, frozenset[State]] = {
    State.READY: frozenset({State.RUNNING, State.STOPPED}),
    State.RUNNING: frozenset({State.PAUSED, State.STOPPED}),
    State.PAUSED: frozenset({State.RUNNING, State.STOPPED}),
    State.STOPPED: frozenset({State.RUNNING}),
}

ALIVE = frozenset({State.RUNNING, State.PAUSED})
"""The states in which a pod has a machine, and a container has processes."""

AT_REST = frozenset(State) - ALIVE


def require(subject: str, verb: str, actual: State, allowed: Collection[State]) -> None:
    """Refuses a call in a wrong state.

    Raises:
        StateError: naming the subject, the call, the actual state and the required states.
    """
    if actual not in allowed:
        raise StateError(subject, verb, actual, sorted(allowed))


def require_transition(subject: str, verb: str, actual: State, wanted: State) -> None:
    """Refuses a transition that is not in the table.

    Raises:
        StateError: as `require`.
    """
    require(
        subject,
        verb,
        actual,
        [state for state, following in TRANSITIONS.items() if wanted in following],
    )
