"""vc stats: a live stream of resource usage."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from vc_core.cli.completion import pod_ids_argument
from vc_core.cli.global_options import Settings, run_async
from vc_core.cli.render import echo_json_line, echo_table, size, table

if TYPE_CHECKING:
    from vc_core.engine.api.pod import Pod
    from vc_core.engine.api.pod_listing import PodStatus
    from vc_core.engine.api.runtime import Runtime
    from vc_core.spec.values import ContainerStats

COLUMNS = ("POD", "CTRS", "CPU", "HOST MEMORY", "GUEST MEMORY", "LIMIT", "READ", "WRITE", "PIDS")


@dataclass(frozen=True)
class Use:
    """Resource usage of a pod at one moment.

    Attributes:
        pod: its id.
        at_s: monotonic time of the sample.
        cpu_ns: CPU time of the machine since its start.
        cpu_percent: of one CPU, since the previous sample; None in the first sample.
        host_bytes: host memory of the machine.
        containers: number of running containers.
        guest_bytes: memory of the containers; None if the guest does not answer.
        limit_bytes: sum of the containers' memory limits; 0 if one has no limit.
        read_bytes: read by the machine from host disks since its start.
        written_bytes: written by the machine to host disks since its start.
        processes: number of processes in containers; None if the guest does not answer.
        unanswered: why the guest did not answer; empty if it did.
    """

    pod: str
    at_s: float
    cpu_ns: int
    cpu_percent: float | None
    host_bytes: int
    containers: int
    guest_bytes: int | None
    limit_bytes: int
    read_bytes: int
    written_bytes: int
    processes: int | None
    unanswered: str = ""


@click.command("stats")
@click.option(
    "--interval",
    default=1.0,
    show_default=True,
    type=click.FloatRange(0.1),
    metavar="SECONDS",
    help="Time between samples.",
)
@click.option("--no-stream", "once", is_flag=True, help="Print one sample and exit.")
@click.option("--json", "as_json", is_flag=True, help="Print one line of JSON per sample.")
@pod_ids_argument(required=False)
@click.pass_obj
def stats(
    settings: Settings, pod_ids: tuple[str, ...], interval: float, once: bool, as_json: bool
) -> None:
    """Show resource usage of running PODs, by default of all, until Ctrl-C.

    CPU is the host CPU time of the machine; 100 % is one CPU. CTRS is the number of running
    containers.
    """
    run_async(_stats(settings, pod_ids, interval, once, as_json))


async def _stats(
    settings: Settings, names: tuple[str, ...], interval: float, once: bool, as_json: bool
) -> None:
    async with settings.runtime() as runtime:
        for name in names:
            await runtime.get(name)  # raises NotFound for an unknown name
        samples = samples_of(runtime, names, interval)
        if as_json:
            async for found in samples:
                echo_json_line(found)
                if once:
                    return
        elif once or not sys.stdout.isatty():
            echo_table(COLUMNS, map(row, await anext(samples)))
        else:
            await _show(samples)


async def samples_of(
    runtime: Runtime, names: tuple[str, ...], interval: float
) -> AsyncIterator[list[Use]]:
    """Yield samples of running pods; the first one after an interval, as CPU is a difference."""
    before: dict[str, Use] = {use.pod: use for use in await _sample(runtime, names, {})}
    while True:
        await asyncio.sleep(interval)
        sample = await _sample(runtime, names, before)
        yield sample
        before = {use.pod: use for use in sample}


async def _sample(runtime: Runtime, names: tuple[str, ...], before: dict[str, Use]) -> list[Use]:
    listing = await runtime.list()
    running = [
        pod
        for pod in listing.pods
        if pod.state.value == "running" and (not names or pod.id in names)
    ]
    uses = await asyncio.gather(*(_use(runtime, pod, before.get(pod.id)) for pod in running))
    return [use for use in uses if use is not None]


async def _use(runtime: Runtime, status: PodStatus, before: Use | None) -> Use | None:
    from vc_core.engine.api.pod_views import Unanswered, within
    from vc_core.spec.errors import NotFound, StateError, VcError
    from vc_core.spec.values import VmStats

    limit_s, unanswered = runtime.config.deadlines.view, status.unanswered
    names = [entry.id for entry in status.containers if entry.state.value == "running"]
    inside: list[ContainerStats] = []
    machine, at_s = VmStats(cpu_ns=0, resident_bytes=0), time.monotonic()
    try:
        pod = await runtime.get(status.id)
        try:
            machine, at_s = await within(limit_s, pod.stats()), time.monotonic()
            names, inside = await within(limit_s, _inside(pod))
        except (NotFound, StateError):  # it stopped meanwhile
            return None
        except (Unanswered, VcError) as error:
            unanswered = str(error)
        finally:
            with contextlib.suppress(Unanswered, VcError):
                await within(limit_s, pod.close())
    except VcError:  # it was deleted, or is damaged
        return None
    passed_s = at_s - before.at_s if before else 0
    percent = (
        (machine.cpu_ns - before.cpu_ns) / 1e7 / passed_s if before and machine.cpu_ns else None
    )
    limits = [entry.memory_limit_bytes for entry in inside]
    return Use(
        pod=status.id,
        at_s=at_s,
        cpu_ns=machine.cpu_ns,
        cpu_percent=None if percent is None else round(percent, 1),
        host_bytes=machine.resident_bytes,
        containers=len(names),
        guest_bytes=None if unanswered else sum(entry.memory_bytes for entry in inside),
        limit_bytes=sum(limits) if all(limits) else 0,
        read_bytes=machine.read_bytes,
        written_bytes=machine.written_bytes,
        processes=None if unanswered else sum(entry.processes for entry in inside),
        unanswered=unanswered,
    )


async def _inside(pod: Pod) -> tuple[list[str], list[ContainerStats]]:
    """The ids of the running containers, and the usage of each."""
    from vc_core.spec.errors import NotFound, OperationError, StateError

    status = await pod.status()
    if status.unanswered:
        raise OperationError(status.unanswered)
    names = [one.id for one in status.containers if one.state.value == "running"]
    used = []
    for name in names:
        with contextlib.suppress(NotFound, StateError):  # it ended meanwhile, or the guest says so
            used.append(await pod.container(name).stats())
    return names, used


def row(use: Use) -> tuple[object, ...]:
    """Format a sample as a row of `COLUMNS`."""
    return (
        use.pod,
        use.containers,
        "" if use.cpu_percent is None else f"{use.cpu_percent:.1f} %",
        size(use.host_bytes),
        "no answer" if use.guest_bytes is None else size(use.guest_bytes),
        size(use.limit_bytes) if use.limit_bytes else "",
        size(use.read_bytes),
        size(use.written_bytes),
        "" if use.processes is None else use.processes,
    )


async def _show(samples: AsyncIterator[list[Use]]) -> None:
    from rich.console import Console
    from rich.live import Live

    if Console().is_dumb_terminal:  # it cannot move the cursor: print tables one below the other
        async for found in samples:
            echo_table(COLUMNS, map(row, found))
        return
    with Live(table(COLUMNS, []), auto_refresh=False, screen=False) as live:
        async for found in samples:
            live.update(
                table(COLUMNS, [[str(cell) for cell in row(use)] for use in found]), refresh=True
            )
