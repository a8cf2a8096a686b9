"""Start times of pods: cold, from a template, from the pool; by the API and by the command."""

from __future__ import annotations

import asyncio
import subprocess
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from benchmarks import bare
from benchmarks.host import Bench
from benchmarks.report import Report
from vc_core import Runtime, Start
from vc_core.spec import around


@dataclass(frozen=True)
class Took:
    """Seconds from the call of `start`.

    Attributes:
        answer: to the agent's first answer.
        whole: to the end of the call.
    """

    answer: float
    whole: float


class Clock:
    """An observer that notes when an agent has answered."""

    answered: ClassVar[float] = 0

    @around
    @asynccontextmanager
    async def agent_connect(self) -> AsyncIterator[None]:
        """Notes the end."""
        yield
        Clock.answered = time.monotonic()


async def run(report: Report, bench: Bench) -> None:
    """Measures."""
    async with bench.runtime(Clock) as runtime:
        await runtime.make_template()
        floor, ours = await _beside_bare(bench, runtime)
        report.add("bare clone: start to the agent's answer", "s", floor)
        template = report.add(
            "pod from template: start to the agent's answer, API", "s", [one.answer for one in ours]
        )
        whole = report.add("pod from template: whole start, API", "s", [one.whole for one in ours])
        report.compare(
            "pod from template / bare clone, to the agent's answer",
            template.median,
            _median(floor),
            1.5,
        )
        taken = await _pooled(bench, runtime)
        pool = report.add(
            "pod from pool: start to the agent's answer, API", "s", [one.answer for one in taken]
        )
        report.add("pod from pool: whole start, API", "s", [one.whole for one in taken])
        report.compare(
            "pod from pool / from template, to the agent's answer",
            pool.median,
            template.median,
            0.25,
        )
        booted = [await _start(runtime, Start.COLD) for _ in bench.times(4)]
        cold = report.add("pod booted: whole start, API", "s", [one.whole for one in booted])
        report.compare("pod booted / from template, whole start", cold.median, whole.median)
    _commands(report, bench)


def _commands(report: Report, bench: Bench) -> None:
    words = ("run", "--rootfs", "/", "--", "true")
    by_template = report.add(
        "vc run -- true, template",
        "s",
        [_timed(bench, *words, "template") for _ in bench.times(12)],
    )
    by_boot = report.add(
        "vc run -- true, cold", "s", [_timed(bench, *words, "cold") for _ in bench.times(4)]
    )
    report.compare(
        "vc run cold / template", by_boot.median, by_template.median, 6, is_at_most=False
    )
    version = [_program([*bench.command, "--version"], bench) for _ in bench.times(12)]
    bare_python = [
        _program([str(Path(bench.command[0]).with_name("python")), "-c", "pass"], bench)
        for _ in version
    ]
    report.add("vc --version", "s", version)
    report.add("python -c pass", "s", bare_python)
    report.compare("vc --version / python -c pass", _median(version), _median(bare_python), 3)


async def _beside_bare(bench: Bench, runtime: Runtime) -> tuple[list[float], list[Took]]:
    """Both in turn, so that what else the machine does meets both."""
    pod = await runtime.create("recipe", start=Start.TEMPLATE)
    await pod.start()
    run_dir = await runtime.hooks.storage_run_dir(pod_id=pod.id)
    how = await bare.recipe(pod, run_dir, bench.folder / "templates")
    floor, ours = list[float](), list[Took]()
    for number in bench.times(16):
        with bare.clones(how, bench.folder / f"bare{number}", 1) as (_, seconds):
            floor.append(seconds)
        ours.append(await _start(runtime, Start.TEMPLATE))
    await pod.delete(force=True)
    return floor, ours


async def _pooled(bench: Bench, runtime: Runtime) -> list[Took]:
    """Pods of the pool, while its process starts the next machine, as in normal use."""
    bench.vc("pool", "start", "--size", "2")
    found = []
    for _ in bench.times(16):
        await filled(runtime)
        found.append(await _start(runtime, Start.POOL))
    bench.vc("pool", "stop")
    return found


async def filled(runtime: Runtime) -> None:
    """Waits until the pool's process, which was started for two machines, has them."""
    while len(runtime.pool.list()) < 2:  # noqa: ASYNC110 (another process's work, while nothing is measured)
        await asyncio.sleep(0.1)


async def _start(runtime: Runtime, way: Start) -> Took:
    pod = await runtime.create(start=way)
    began = time.monotonic()
    try:
        await pod.start()
        return Took(Clock.answered - began, time.monotonic() - began)
    finally:
        await pod.delete(force=True)
        await pod.close()
        await asyncio.sleep(0)


def _timed(bench: Bench, verb: str, *words: str) -> float:
    *rest, way = words
    began = time.monotonic()
    bench.vc(verb, "--start", way, *rest)
    return time.monotonic() - began


def _program(words: list[str], bench: Bench) -> float:
    began = time.monotonic()
    subprocess.run(words, env=bench.environment, capture_output=True, check=True)
    return time.monotonic() - began


def _median(samples: list[float]) -> float:
    return sorted(samples)[len(samples) // 2]
