"""Numbers, and what becomes of them: JSON for programs, a table for people, plots."""

from __future__ import annotations

import dataclasses
import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Series:
    """Samples of one thing.

    Attributes:
        name: what was measured.
        unit: of the samples.
        samples: in the order in which they were taken.
    """

    name: str
    unit: str
    samples: tuple[float, ...]

    @property
    def median(self) -> float:
        """The middle one."""
        return statistics.median(self.samples)

    @property
    def p99(self) -> float:
        """99 of 100 are not above it; with fewer than 100 samples, the largest."""
        return sorted(self.samples)[min(len(self.samples) - 1, int(len(self.samples) * 0.99))]


@dataclass(frozen=True)
class Ratio:
    """One series beside another of the same run, and what was wanted.

    Attributes:
        name: what is compared.
        value: the first median by the second.
        target: what was wanted; 0 for nothing.
        is_at_most: whether more than the target is bad, or less.
    """

    name: str
    value: float
    target: float = 0
    is_at_most: bool = True

    @property
    def is_met(self) -> bool:
        """Whether the target is reached; true without one."""
        return not self.target or (
            self.value <= self.target if self.is_at_most else self.value >= self.target
        )


@dataclass
class Report:
    """What one run has found.

    Attributes:
        machine: what it ran on.
        series: everything that was measured.
        ratios: what of it is compared.
        skipped: what could not be measured here, and why.
    """

    machine: dict[str, str]
    series: list[Series] = field(default_factory=list)
    ratios: list[Ratio] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)

    def add(self, name: str, unit: str, samples: Sequence[float]) -> Series:
        """Keeps samples."""
        found = Series(name, unit, tuple(samples))
        self.series.append(found)
        return found

    def compare(
        self, name: str, one: float, other: float, target: float = 0, is_at_most: bool = True
    ) -> None:
        """Keeps a ratio."""
        self.ratios.append(Ratio(name, one / other if other else float("inf"), target, is_at_most))

    def write(self, folder: Path) -> None:
        """Writes results.json, results.md and a plot of each series with more than one sample."""
        folder.mkdir(parents=True, exist_ok=True)
        told = dataclasses.asdict(self)
        (folder / "results.json").write_text(json.dumps(told, indent=1) + "\n")
        (folder / "results.md").write_text(self.table())
        _plot(self, folder / "results.svg")

    def table(self) -> str:
        """Markdown."""
        lines = ["# Results", "", *(f"- {key}: {value}" for key, value in self.machine.items()), ""]
        lines += ["| ratio | value | target | |", "|---|---|---|---|"]
        for ratio in self.ratios:
            sign = "at most" if ratio.is_at_most else "at least"
            wanted = f"{sign} {ratio.target:g}" if ratio.target else ""
            lines.append(
                f"| {ratio.name} | {ratio.value:.2f} | {wanted} | "
                f"{'' if ratio.is_met else 'missed'} |"
            )
        lines += ["", "| measure | median | p99 | unit | samples |", "|---|---|---|---|---|"]
        for one in self.series:
            lines.append(
                f"| {one.name} | {one.median:.4g} | {one.p99:.4g} | {one.unit} | "
                f"{len(one.samples)} |"
            )
        lines += ["", *(f"- not measured: {name}: {why}" for name, why in self.skipped.items())]
        return "\n".join(lines).rstrip() + "\n"


def _plot(report: Report, path: Path) -> None:
    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib import pyplot as plt

    units = list(dict.fromkeys(one.unit for one in report.series))
    figure, axes = plt.subplots(
        len(units), 1, figsize=(9, 2 + 0.42 * len(report.series)), squeeze=False
    )
    for axis, unit in zip(axes[:, 0], units, strict=True):
        chosen = [one for one in report.series if one.unit == unit]
        axis.boxplot(
            [one.samples for one in chosen],
            orientation="horizontal",
            tick_labels=[one.name for one in chosen],
        )
        axis.set_xlabel(unit)
        axis.set_xlim(left=0)
        axis.invert_yaxis()
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
