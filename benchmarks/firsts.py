"""The first container of a clone, and many clones that each run one.

Beside them stand clones of a machine with a shell, in which `unshare`, `chroot` and `true` are the
first words typed.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack
from pathlib import Path

from benchmarks import bare_guest
from benchmarks.host import Bench
from benchmarks.report import Report
from benchmarks.starts import Clock
from vc_core import Runtime, Start

_CROWD = 40


async def run(report: Report, bench: Bench) -> None:
    """Measures, in turn."""
    rootfs = bare_guest.write_rootfs(bench.folder / "rootfs")
    async with bench.runtime(Clock) as runtime:
        await runtime.make_template()
        async with runtime.pod(start=Start.TEMPLATE) as pod:
            saved = await bare_guest.save(bench, runtime, pod)
        floor, ours = list[float](), list[float]()
        for number in range(1 + len(bench.times(16))):  # the first pair reads files
            bare = await _typed(saved)
            container = await _contained(runtime, rootfs)
            if number:
                floor.append(bare)
                ours.append(container)
        typed = report.add("unshare, chroot and true, typed first in a clone", "s", floor)
        first = report.add("agent's answer to the end of a first container's true", "s", ours)
        report.compare(
            "first container / unshare, chroot and true", first.median, typed.median, 1.5
        )
        await _crowd(report, runtime, saved, rootfs, 10 if bench.is_quick else _CROWD)


async def _crowd(
    report: Report, runtime: Runtime, saved: bare_guest.Saved, rootfs: Path, count: int
) -> None:
    floors, rates = list[float](), list[float]()
    for _ in range(3):
        began = time.monotonic()
        await _clones(saved, count)
        floors.append(count / (time.monotonic() - began))
        began = time.monotonic()
        pods = [await runtime.create(start=Start.TEMPLATE) for _ in range(count)]
        try:
            await asyncio.gather(*(pod.run("true", rootfs=rootfs) for pod in pods))
            rates.append(count / (time.monotonic() - began))
        finally:
            await asyncio.gather(*(pod.delete(force=True) for pod in pods))
    label = f"{count} at once"
    floor = report.add(f"bare clones that run true, {label}: rate", "1/s", floors)
    ours = report.add(f"pods that each run a container with true, {label}: rate", "1/s", rates)
    name = f"rate of pods with a container / of bare clones, {label}"
    report.compare(name, ours.median, floor.median, 0.8, is_at_most=False)


async def _clones(saved: bare_guest.Saved, count: int) -> None:
    """Returns when all have run `true`; ends them then."""
    async with AsyncExitStack() as stack:
        clones = (bare_guest.clone(saved, f"clone{number}") for number in range(count))
        running = await asyncio.gather(*map(stack.enter_async_context, clones))
        await asyncio.gather(*(one.run() for one in running))


async def _typed(saved: bare_guest.Saved) -> float:
    async with bare_guest.clone(saved, "typed") as clone:
        began = time.monotonic()
        await clone.run()
        return time.monotonic() - began


async def _contained(runtime: Runtime, rootfs: Path) -> float:
    pod = await runtime.create(start=Start.TEMPLATE)
    try:
        await pod.run("true", rootfs=rootfs)
        return time.monotonic() - Clock.answered
    finally:
        await pod.delete(force=True)
        await pod.close()
