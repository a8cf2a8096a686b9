"""The result of a fork."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

from vc_core.engine.lifecycle.standstill import Standstill

P = TypeVar("P")


class Children(tuple[P, ...]):
    """The new pods of a fork, and what their parent noticed of it.

    Attributes:
        stood_still_s: how long the parent's vCPUs stood still, in seconds.
        detached_s: how long the parent's programs that use a directory of the host, or write to a
            log, had to wait, in seconds; 0 for a pod without such.
    """

    stood_still_s: float
    detached_s: float

    def __new__(cls, pods: Iterable[P], standstill: Standstill) -> Children[P]:
        """Returns these pods with these times."""
        made = super().__new__(cls, pods)
        made.stood_still_s = standstill.stood_still_s
        made.detached_s = standstill.detached_s
        return made
