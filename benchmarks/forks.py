"""Forks of a pod with a container: how long the parent waits, and many children at once."""

from __future__ import annotations

import asyncio
import time

from benchmarks import bare
from benchmarks.crowds import pss, sleeping
from benchmarks.host import Bench
from benchmarks.report import Report
from vc_core import Children, Pod, Start

_ROUNDS = 3  # in turn, so that what else the machine does meets both
_STILL_S = 0.15


async def run(report: Report, bench: Bench) -> None:
    """Measures."""
    async with bench.runtime() as runtime:
        pod = await runtime.create(start=Start.TEMPLATE)
        await pod.start()
        run_dir = await runtime.hooks.storage_run_dir(pod_id=pod.id)
        how = await bare.recipe(pod, run_dir, bench.folder / "templates")
        try:
            await sleeping(pod)
            await _parent(report, bench, pod)
            await _crowd(report, bench, pod, how, 10 if bench.is_quick else 40)
        finally:
            await pod.delete(force=True)


async def _parent(report: Report, bench: Bench, pod: Pod) -> None:
    whole, still, detached = [], [], []
    for _ in bench.times(12):
        began = time.monotonic()
        children = await pod.fork()
        whole.append(time.monotonic() - began)
        still.append(children.stood_still_s)
        detached.append(children.detached_s)
        await _delete(children)
    report.add("pod forked from one with a container: whole call, API", "s", whole)
    found = report.add("fork: the parent stands still", "s", still)
    report.add("fork: the parent's files and logs wait", "s", detached)
    report.compare(f"fork: the parent stands still / {_STILL_S} s", found.median, _STILL_S, 1)


async def _crowd(report: Report, bench: Bench, pod: Pod, how: bare.Recipe, count: int) -> None:
    label = f"{count} at once"
    floors, rates, floor_memory, memory = [], [], [], []
    for number in range(_ROUNDS):
        with bare.clones(how, bench.folder / f"forks{number}", count) as (made, seconds):
            floors.append(count / seconds)
            floor_memory += [pss(clone.pid) for clone in made]
        began = time.monotonic()
        children = await pod.fork(count)
        rates.append(count / (time.monotonic() - began))
        states = [await child.status(ask_guest=False) for child in children]
        memory += [pss(state.pid) for state in states]
        await _delete(children)
    floor = report.add(f"bare clones beside forks, {label}: rate", "1/s", floors)
    ours = report.add(f"forks, {label}: rate, the save included", "1/s", rates)
    report.compare(
        f"rate of forks / of bare clones, {label}",
        ours.median,
        floor.median,
        0.7,
        is_at_most=False,
    )
    small = report.add(f"bare clones beside forks, {label}: PSS each", "MiB", floor_memory)
    large = report.add(f"forks with a sleeping container, {label}: PSS each", "MiB", memory)
    report.compare(f"PSS of a fork / of a bare clone, {label}", large.median, small.median, 1.3)


async def _delete(children: Children[Pod]) -> None:
    await asyncio.gather(*(child.delete(force=True) for child in children))
