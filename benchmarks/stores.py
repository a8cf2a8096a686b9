"""What many pods in the store cost those who look at it, and those who start one more."""

from __future__ import annotations

import time

from benchmarks.host import Bench
from benchmarks.report import Report
from vc_core import Start


async def run(report: Report, bench: Bench) -> None:
    """Measures."""
    sizes = (10, 100) if bench.is_quick else (10, 100, 500)
    async with bench.runtime() as runtime:
        await runtime.make_template()
        names: list[str] = []
        starts = {}
        for size in sizes:
            while len(names) < size:
                names.append((await runtime.create()).id)
            listings, started = [], []
            for _ in bench.times(6):
                began = time.monotonic()
                found = await runtime.list()
                listings.append(time.monotonic() - began)
                if len(found.pods) != size or found.problems:
                    raise RuntimeError(
                        f"{len(found.pods)} pods instead of {size}: {found.problems}"
                    )
                pod = await runtime.create(start=Start.TEMPLATE)
                began = time.monotonic()
                await pod.start()
                started.append(time.monotonic() - began)
                await pod.delete(force=True)
            listed = report.add(f"list of {size} pods, API", "s", listings).median
            starts[size] = report.add(f"pod start beside {size} others", "s", started).median
        for name in names:
            await (await runtime.get(name)).delete()
    report.compare(f"list of {sizes[-1]} pods, API, by 0.15 s", listed, 0.15, 1)
    report.compare(
        f"pod start beside {sizes[-1]} / beside {sizes[0]} others",
        starts[sizes[-1]],
        starts[sizes[0]],
    )
