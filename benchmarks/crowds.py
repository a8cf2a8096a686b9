"""Many pods at once: how fast they come, what memory and what processor time they cost."""

from __future__ import annotations

import asyncio
import resource
import time
from pathlib import Path

from benchmarks import bare
from benchmarks.host import Bench
from benchmarks.report import Report
from vc_core import ContainerSpec, Pod, ProcessSpec, Rootfs, Runtime, Start, Stdio

_IDLE_S = 10
_SIZES = (1, 10, 40)
_ROUNDS = 3  # in turn, so that what else the machine does meets both


async def run(report: Report, bench: Bench) -> None:
    """Measures."""
    sizes = _SIZES[:-1] if bench.is_quick else _SIZES
    async with bench.runtime() as runtime:
        await runtime.make_template()
        pod = await runtime.create("recipe", start=Start.TEMPLATE)
        await pod.start()
        run_dir = await runtime.hooks.storage_run_dir(pod_id=pod.id)
        how = await bare.recipe(pod, run_dir, bench.folder / "templates")
        await pod.delete(force=True)
        for count in sizes:
            await _compare(report, bench, runtime, how, count)


async def _compare(
    report: Report, bench: Bench, runtime: Runtime, how: bare.Recipe, count: int
) -> None:
    label = f"{count} at once"
    floors, rates = [], []
    for number in range(_ROUNDS - 1):
        with bare.clones(how, bench.folder / f"crowd{count}-{number}", count) as (_, seconds):
            floors.append(count / seconds)
        rates.append(await _rate(runtime, count))
    with bare.clones(how, bench.folder / f"crowd{count}", count) as (made, seconds):
        floors.append(count / seconds)
        pids = [clone.pid for clone in made]
        floor = report.add(f"bare clones, {label}: rate", "1/s", floors)
        floor_memory = report.add(
            f"bare clones, {label}: PSS each", "MiB", [pss(pid) for pid in pids]
        )
        floor_idle = report.add(f"bare clones, {label}: idle CPU each", "ms/s", await _idle(pids))
    used = resource.getrusage(resource.RUSAGE_SELF)
    began = time.monotonic()
    pods = [await runtime.create(start=Start.TEMPLATE) for _ in range(count)]
    try:
        times = await asyncio.gather(*(_started(pod, began) for pod in pods))
        seconds = time.monotonic() - began
        now = resource.getrusage(resource.RUSAGE_SELF)
        ours = report.add(f"pods, {label}: rate", "1/s", [*rates, count / seconds])
        report.add(f"pods, {label}: until it answers", "s", times)
        cpu = now.ru_utime + now.ru_stime - used.ru_utime - used.ru_stime
        report.add(
            f"pods, {label}: share of a core that our process uses", "cores", [cpu / seconds]
        )
        pids = [(await pod.status(ask_guest=False)).pid for pod in pods]
        memory = report.add(f"pods, {label}: PSS each", "MiB", [pss(pid) for pid in pids])
        is_crowd = count == max(_SIZES)  # for which there are targets
        rate = 0.7 if is_crowd else 0
        report.compare(
            f"rate of pods / of bare clones, {label}",
            ours.median,
            floor.median,
            rate,
            is_at_most=False,
        )
        report.compare(
            f"PSS of a pod / of a bare clone, {label}",
            memory.median,
            floor_memory.median,
            1.3 if is_crowd else 0,
        )
        if is_crowd:
            report.compare(f"PSS of a pod by 40 MiB, {label}", memory.median, 40, 1)
            report.compare(f"our process by half a core, {label}", cpu / seconds, 0.5, 1)
        await asyncio.gather(*(sleeping(pod) for pod in pods))
        idle = report.add(
            f"pods with a sleeping container, {label}: idle CPU each", "ms/s", await _idle(pids)
        )
        full = report.add(
            f"pods with a sleeping container, {label}: PSS each", "MiB", [pss(pid) for pid in pids]
        )
        if is_crowd:
            report.compare(
                f"PSS of a pod with a sleeping container by 45 MiB, {label}", full.median, 45, 1
            )
        report.compare(
            f"idle CPU of a pod / of a bare clone, {label}", idle.median, floor_idle.median, 1.2
        )
    finally:
        await asyncio.gather(*(pod.delete(force=True) for pod in pods))


async def _rate(runtime: Runtime, count: int) -> float:
    """So many pods at once, per second."""
    began = time.monotonic()
    pods = [await runtime.create(start=Start.TEMPLATE) for _ in range(count)]
    try:
        await asyncio.gather(*(pod.start() for pod in pods))
        return count / (time.monotonic() - began)
    finally:
        await asyncio.gather(*(pod.delete(force=True) for pod in pods))


async def _started(pod: Pod, began: float) -> float:
    await pod.start()
    return time.monotonic() - began


async def sleeping(pod: Pod) -> None:
    """Gives a pod a container that does nothing, and hangs up."""
    spec = ContainerSpec(
        id="c",
        rootfs=Rootfs(path=Path("/")),
        process=ProcessSpec(args=("/bin/sleep", "1000")),
        stdio=Stdio.NULL,
    )
    await (await pod.create_container(spec)).start()
    await pod.close()


async def _idle(pids: list[int]) -> list[float]:
    """Processor time of each, in milliseconds per second, when nothing is asked of them."""
    await asyncio.sleep(3)  # what the start has set off comes to its end
    before = [_cpu_s(pid) for pid in pids]
    await asyncio.sleep(_IDLE_S)
    return [(_cpu_s(pid) - then) * 1000 / _IDLE_S for pid, then in zip(pids, before, strict=True)]


def _cpu_s(pid: int) -> float:
    """From the scheduler, in nanoseconds: clock ticks are too coarse for what idles."""
    total = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        total += int((task / "schedstat").read_text().split()[0])
    return total / 1e9


def pss(pid: int) -> float:
    """The proportional set size of a process, in MiB."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("Pss:")).split()[1]) / 1024
