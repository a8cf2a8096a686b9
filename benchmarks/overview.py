"""The table and the plot of docs/performance.md: ours, floors and peers of one run."""

from __future__ import annotations

from pathlib import Path

from benchmarks.report import Report, Series

_DOCS = Path(__file__).parents[1] / "docs"
_PAGE = _DOCS / "performance.md"
_PLOT = _DOCS / "performance.svg"
_BEGIN, _END = "<!-- made by make bench: begin -->\n", "<!-- made by make bench: end -->\n"
# What a series is called in the table, and whose it is.
_ROWS = {
    "s": {
        "unshare, chroot and true, typed first in a clone": (
            "true, typed in a bare clone",
            "floor",
        ),
        "bare clone: start to the agent's answer": ("start of a bare clone", "floor"),
        "pod from template: start to the agent's answer, API": ("start of a pod, template", "ours"),
        "pod from pool: start to the agent's answer, API": ("start of a pod, pool", "ours"),
        "agent's answer to the end of a first container's true": (
            "true in a first container, template, API",
            "ours",
        ),
        "pod.run of true, machine of the pool, API": ("true, pool, API", "ours"),
        "vc run --start pool IMAGE true": ("vc run true, pool", "ours"),
        "vc run -- true, template": ("vc run true, template", "ours"),
        "runsc run of true, systrap": ("runsc run true", "runsc"),
        "ctr run with runc, no machine": ("ctr run true", "runc"),
        "virtme-ng running uname -a, without KVM": ("virtme-run uname -a", "virtme-ng"),
    },
    "MiB": {
        "bare clones, 40 at once: PSS each": ("bare clone, 40 at once", "floor"),
        "pods, 40 at once: PSS each": ("pod, 40 at once", "ours"),
        "pods with a sleeping container, 40 at once: PSS each": (
            "pod with a sleeping container, 40 at once",
            "ours",
        ),
        "forks with a sleeping container, 40 at once: PSS each": (
            "fork with a sleeping container, 40 at once",
            "ours",
        ),
        "runsc with a sleeping container: PSS": ("runsc with a sleeping container", "runsc"),
    },
}
_COLOURS = {"ours": "C0", "floor": "C7", "runsc": "C1", "runc": "C2", "virtme-ng": "C3"}


def write(report: Report) -> bool:
    """Writes table and plot; returns False, and writes nothing, where a measure is missing."""
    found = {one.name: one for one in report.series}
    if any(name not in found for rows in _ROWS.values() for name in rows):
        return False
    before, rest = _PAGE.read_text().split(_BEGIN)
    after = rest.split(_END)[1]
    _PAGE.write_text(f"{before}{_BEGIN}{_table(report, found)}{_END}{after}")
    _plot(found)
    return True


def _table(report: Report, found: dict[str, Series]) -> str:
    machine = ", ".join(f"{key}: {value}" for key, value in report.machine.items())
    lines = [
        f"Medians of one run. {machine}.",
        "",
        "| measured | whose | median |",
        "|---|---|---|",
    ]
    for unit, rows in _ROWS.items():
        for name, (what, whose) in rows.items():
            lines.append(f"| {what} | {whose} | {found[name].median:.3g} {unit} |")
    return "\n".join([*lines, "", f"![The same as a plot]({_PLOT.name})", ""])


def _plot(found: dict[str, Series]) -> None:
    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib import pyplot as plt
    from matplotlib.patches import Patch

    heights = [len(rows) for rows in _ROWS.values()]
    figure, axes = plt.subplots(len(_ROWS), 1, figsize=(9, 7), height_ratios=heights)
    for axis, (unit, rows) in zip(axes, _ROWS.items(), strict=True):
        names = [what for what, _ in rows.values()]
        values = [found[name].median for name in rows]
        colours = [_COLOURS[whose] for _, whose in rows.values()]
        axis.bar_label(axis.barh(names, values, color=colours), fmt="%.3g", padding=3)
        axis.set_xscale("log")
        axis.set_xlabel(unit)
        axis.invert_yaxis()
    handles = [Patch(color=colour, label=whose) for whose, colour in _COLOURS.items()]
    axes[0].legend(handles=handles, loc="lower right")
    figure.tight_layout()
    figure.savefig(_PLOT, metadata={"Date": None})
    plt.close(figure)
