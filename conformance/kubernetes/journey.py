"""Pods of each runtime in one cluster: how long they take, and what of them is wrong."""

from __future__ import annotations

import statistics
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from conformance.kubernetes import pods
from conformance.kubernetes.cluster import Cluster

READY = "ready"
DELETED = "deleted"
NAMES = (*(one.__name__ for one in pods.LOOKS), DELETED)
_MOST_RATIO = 4.0


@dataclass
class Found:
    """What was found of a runtime.

    Attributes:
        seconds: how long each pod took until it was ready.
        wrong: what is wrong, by the name of the look.
    """

    seconds: list[float] = field(default_factory=list)
    wrong: dict[str, str] = field(default_factory=dict)

    @property
    def median_s(self) -> float:
        """How long a pod takes until it is ready."""
        return statistics.median(self.seconds)


def run(cluster: Cluster, names: Sequence[str], rounds: int) -> Iterator[tuple[str, str, Found]]:
    """Creates and deletes pods in turn, and looks at the last; yields what is new of a runtime."""
    found = {name: Found() for name in names}
    for number in range(rounds):
        for name in names:
            pod = pods.Subject(cluster, f"{name}-{number}", name)
            seconds = pods.create(cluster, name, pod.name)
            found[name].seconds.append(seconds)
            yield name, f"ready after {seconds:.2f} s", found[name]
            for look in pods.LOOKS if number == rounds - 1 else ():
                if said := pods.look(pod, look):
                    found[name].wrong[look.__name__] = said
                yield name, f"{look.__name__}: {said or 'good'}", found[name]
            pods.delete(cluster, pod.name)
    for name in names:
        if remains := pods.left(cluster, name):
            found[name].wrong[DELETED] = f"it still has {' '.join(remains)}"
        yield name, found[name].wrong.get(DELETED, "all is deleted"), found[name]


def table(found: Mapping[str, Found]) -> str:
    """Returns a line for each look, and the times."""
    looks = (
        [name, *("bad" if name in one.wrong else "good" for one in found.values())]
        for name in NAMES
    )
    seconds = ["ready, s", *(f"{one.median_s:.2f}" for one in found.values())]
    rows = [["", *found], *looks, seconds]
    return "\n".join("".join(f"{word:16}" for word in row).rstrip() for row in rows)


def complaints(ours: Found, floor: Found | None, allowed: Collection[str]) -> list[str]:
    """Returns a line for each thing that is wrong, and no known exception."""
    lines = [f"{name}: {said}" for name, said in ours.wrong.items() if name not in allowed]
    if floor is not None and READY not in allowed:
        ratio = ours.median_s / floor.median_s
        if ratio > _MOST_RATIO:
            lines.append(f"{READY}: {ratio:.1f} times as long; at most {_MOST_RATIO:g}")
    return lines
