"""What the programs of a pod notice of its being saved."""

from __future__ import annotations

from msgspec import Struct


class Standstill(Struct, frozen=True):
    """How long a pod waited while it was saved.

    Attributes:
        stood_still_s: how long its vCPUs stood still, in seconds; for a driver that does not
            measure that, how long its whole operation took.
        detached_s: how long programs that use a directory of the host, or write to a log, had to
            wait, in seconds; includes the former. 0 for a pod without such.
    """

    stood_still_s: float = 0.0
    detached_s: float = 0.0
