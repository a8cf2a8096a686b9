"""What comes of many lives."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass
class Report:
    """What came of it.

    Attributes:
        seed: of all lives.
        lives: that are over.
        kinds: how many of each.
        kills: of whom, how often.
        troubles: how often each.
        refused: calls that failed with an error of ours, in lives with a kill or trouble.
        grown_kib: memory of this process, from the end of the warm-up.
        descriptors: open files more than at the begin.
        seconds: all lives.
        failures: number of the life, and what was wrong.
    """

    seed: int
    lives: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    kills: Counter[str] = field(default_factory=Counter)
    troubles: Counter[str] = field(default_factory=Counter)
    refused: int = 0
    grown_kib: int = 0
    descriptors: int = 0
    seconds: float = 0
    failures: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, values: dict[str, object]) -> Report:
        """From `values`, by way of JSON."""
        counters = ("kinds", "kills", "troubles")
        read = {k: Counter(v) if k in counters else v for k, v in values.items()}
        return cls(**read)  # type: ignore[arg-type]

    def values(self) -> dict[str, object]:
        """For JSON."""
        return {k: dict(v) if isinstance(v, Counter) else v for k, v in vars(self).items()}
