"""Trees of small files that a container reads and writes through a mount."""

from __future__ import annotations

from pathlib import Path

from benchmarks.host import Bench
from benchmarks.report import Report
from vc_core import Mount, Start

_TREE = 10_000
_OWN = "copied in the guest's own file system"
_READ, _AGAIN = "read through a mount", "read through a mount again"
_WRITTEN = "written through a mount"
_MILLISECOND = 1.0
_STEPS = {
    _READ: "cp -r /tree /tmp/first",
    _AGAIN: "cp -r /tree /tmp/second",
    _OWN: "cp -r /tmp/first /tmp/third",
    _WRITTEN: "cp -r /tmp/first /back/t",
}


async def run(report: Report, bench: Bench) -> None:
    """Measures, in a pod that can be quiesced, where FUSE is above 9p, and in one that cannot."""
    count = _TREE // (10 if bench.is_quick else 1)
    tree = bench.folder / "tree"
    for number in range(count):
        file = tree / str(number // 100) / f"{number}.txt"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"file {number}\n" * 20)
    for can_quiesce, kind in ((True, "9p below FUSE"), (False, "9p")):
        told = await _copied(bench, tree, can_quiesce)
        found = {
            step: report.add(f"small file {step}, {kind}", "ms", [seconds / count * 1000])
            for step, seconds in told.items()
        }
        for step in (_READ, _WRITTEN):
            name = f"small file {step}, {kind} / 1 ms"
            report.compare(name, found[step].median, _MILLISECOND, 1)
        name = f"small file {_AGAIN}, {kind} / {_OWN}"
        report.compare(name, found[_AGAIN].median, found[_OWN].median, 2)


async def _copied(bench: Bench, tree: Path, can_quiesce: bool) -> dict[str, float]:
    """Returns how many seconds each step took, by the guest's clock."""
    back = bench.folder / f"back-{can_quiesce}"
    back.mkdir()
    mounts = (
        Mount(source=tree, destination="/tree", read_only=True),
        Mount(source=back, destination="/back", read_only=False),
    )
    lines = [f"date +%s%N; {words} || exit 9" for words in _STEPS.values()]
    async with bench.runtime() as runtime:
        pod = await runtime.create(start=Start.TEMPLATE, memory_mib=1024, can_quiesce=can_quiesce)
        await pod.start()
        try:
            script = "\n".join([*lines, "date +%s%N"])
            done = await pod.run("sh", "-c", script, mounts=mounts)
        finally:
            await pod.delete(force=True)
    if done.exit_code:
        raise RuntimeError(f"in the guest: {done.exit_code} {done.stderr.decode()}")
    times = [int(line) / 1e9 for line in done.stdout.split()]
    return {
        step: after - before
        for step, before, after in zip(_STEPS, times[:-1], times[1:], strict=True)
    }
