"""What confinement costs: starts with and without the jail of QEMU, containers with and without the
default seccomp filter. Both of a pair in turn, so that what else the machine does meets both.
"""

from __future__ import annotations

import time
from pathlib import Path

from msgspec import structs

from benchmarks.host import Bench
from benchmarks.report import Report
from vc_core import ContainerSpec, Pod, ProcessSpec, Rootfs, Runtime, Start
from vc_core.config import Config, parse
from vc_core.spec import Confinement

_MODES = ("strict", "off")


async def run(report: Report, bench: Bench) -> None:
    """Measures."""
    await _starts(report, bench)
    async with bench.runtime() as runtime:
        pod = await runtime.create(start=Start.TEMPLATE, memory_mib=512)
        await pod.start()
        try:
            await _containers(report, bench, pod)
        finally:
            await pod.delete(force=True)


async def _starts(report: Report, bench: Bench) -> None:
    took: dict[str, list[float]] = {mode: [] for mode in _MODES}
    runtimes = {mode: Runtime.open(_config(bench, mode)) for mode in _MODES}
    for runtime in runtimes.values():
        await runtime.make_template()
        await _start(runtime)  # the first one warms up
    for number in bench.times(16):
        for mode in _MODES if number % 2 else reversed(_MODES):
            took[mode].append(await _start(runtimes[mode]))
    for runtime in runtimes.values():
        await runtime.close()
    jailed = report.add("pod from template: whole start, jail strict", "s", took["strict"])
    free = report.add("pod from template: whole start, jail off", "s", took["off"])
    report.compare("pod from template, with the jail / without", jailed.median, free.median, 1.1)


def _config(bench: Bench, mode: str) -> Config:
    config = parse(bench.config_file.read_text(), bench.config_file)
    tables = {**config.tables, ("hypervisor", "qemu"): {"jail": mode}}
    return structs.replace(config, tables=tables)


async def _start(runtime: Runtime) -> float:
    pod = await runtime.create(start=Start.TEMPLATE)
    began = time.monotonic()
    await pod.start()
    took = time.monotonic() - began
    await pod.delete(force=True)
    return took


async def _containers(report: Report, bench: Bench, pod: Pod) -> None:
    took: dict[str | None, list[float]] = {None: [], "": []}
    for number in range(2 + len(bench.times(20))):  # the first ones warm up
        for seccomp in took if number % 2 else reversed(took):
            spec = ContainerSpec(
                id=f"c{number}{'' if seccomp is None else 'u'}",
                rootfs=Rootfs(path=Path("/")),
                process=ProcessSpec(args=("/bin/sleep", "1000")),
                confinement=Confinement(seccomp=seccomp),
            )
            began = time.monotonic()
            container = await pod.create_container(spec)
            await container.start()
            if number >= 2:
                took[seccomp].append(time.monotonic() - began)
            await container.delete(force=True)
    filtered = report.add("container: create and start, default seccomp filter", "s", took[None])
    free = report.add("container: create and start, no seccomp filter", "s", took[""])
    report.compare("container, with the filter / without", filtered.median, free.median)
