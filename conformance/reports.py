"""Reads reports in TAP, https://testanything.org, and what may fail, from docs/conformance.md."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

_POINT = re.compile(r"^(not )?ok\b(.*)", re.MULTILINE)
_EXCEPTION = re.compile(r"^\| `(\w+)` \| (\d+) \| (\S.*) \|$", re.MULTILINE)


@dataclass(frozen=True)
class Report:
    """What one program has found about one runtime.

    Attributes:
        passed: test points that passed, without those that were skipped.
        failed: test points that failed.
        is_complete: whether the program ended by itself with exit code 0, and told no error
            outside of a test point.
    """

    passed: int
    failed: int
    is_complete: bool

    @property
    def is_clean(self) -> bool:
        """Whether nothing has failed."""
        return self.is_complete and not self.failed


def read(text: str, exit_code: int | None) -> Report:
    """Reads a report.

    Args:
        text: the output of a program.
        exit_code: how it ended; None if it was killed at its time limit.
    """
    points = [(bool(bad), more) for bad, more in _POINT.findall(text)]
    tells_error = not points and '"error"' in text  # programs with hooks have no test points
    return Report(
        passed=sum(not bad and "# SKIP" not in more for bad, more in points),
        failed=sum(bad for bad, _ in points),
        is_complete=exit_code == 0 and not tells_error,
    )


def exceptions(page: Path) -> dict[str, int]:
    """Reads which programs may fail, and in how many test points at most."""
    return {name: int(most) for name, most, _ in _EXCEPTION.findall(page.read_text())}


def complaints(found: dict[str, Report], allowed: dict[str, int]) -> list[str]:
    """Returns a line for each program that is worse than what is allowed."""
    lines = []
    for name, report in found.items():
        if report.is_clean:
            continue
        if name not in allowed:
            lines.append(f"{name}: is not clean, and no known exception")
        elif report.failed > allowed[name]:
            lines.append(f"{name}: {report.failed} points fail, at most {allowed[name]} are known")
    return lines


def table(found: dict[str, dict[str, Report]]) -> str:
    """Returns the reports of runtimes side by side, a program a line, with sums at the end."""
    runtimes = list(found)
    programs = list(dict.fromkeys(name for reports in found.values() for name in reports))
    rows = [
        ["program", *runtimes],
        *([name, *(cell(found[one].get(name)) for one in runtimes)] for name in programs),
        ["clean programs", *(_clean(found[one]) for one in runtimes)],
        ["points ok / not ok", *(_points(found[one]) for one in runtimes)],
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(word.ljust(width) for word, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def cell(report: Report | None) -> str:
    """Returns how many points have passed and failed; a dash when there is no report."""
    if report is None:
        return "-"
    marks = "" if report.is_complete else " error"
    return f"{report.passed} / {report.failed}{marks}"


def _clean(reports: dict[str, Report]) -> str:
    return f"{sum(one.is_clean for one in reports.values())} of {len(reports)}"


def _points(reports: dict[str, Report]) -> str:
    passed, failed = (
        sum(getattr(one, name) for one in reports.values()) for name in ("passed", "failed")
    )
    return f"{passed} / {failed}"
