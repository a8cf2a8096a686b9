"""vc stats: what pods use, of the host and inside, again and again."""

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
    from vc_core.engine.api.pod_views import PodStatus
    from vc_core.engine.api.runtime import Runtime
    from vc_core.spec.values import ContainerStats

COLUMNS = ("POD", "CTRS", "CPU", "HOST MEMORY", "GUEST MEMORY", "LIMIT", "READ", "WRITE", "PIDS")


@dataclass(frozen=True)
class Use:
    """What a pod uses at one moment.

    Attributes:
        pod: its id.
        at_s: when, on a clock that only goes forward.
        cpu_ns: processor time of its machine since that began.
        cpu_percent: of one processor, since the sample before; None in the first.
        host_bytes: memory of the host that its machine has.
        containers: how many run.
        guest_bytes: memory that they use inside; None when the guest does not answer.
        limit_bytes: that they may use; 0 when one has no limit.
        read_bytes: from the host's disks by its machine, since that began.
        written_bytes: to them.
        processes: that they have; None when the guest does not answer.
        unanswered: why the guest did not tell, for people.
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
    "--interval", default=1.0, show_default=True, type=click.FloatRange(0.1), metavar="SECONDS"
)
@click.option("--no-stream", "once", is_flag=True, help="One table, after one interval.")
@click.option("--json", "as_json", is_flag=True, help="Print a line of JSON for each sample.")
@pod_ids_argument(required=False)
@click.pass_obj
def stats(
    settings: Settings, pod_ids: tuple[str, ...], interval: float, once: bool, as_json: bool
) -> None:
    """Show what running PODs use, all by default, until Ctrl-C.

    CPU is that of the machine on this host, 100 % being one processor. CTRS are the containers that
    run.
    """
    run_async(_stats(settings, pod_ids, interval, once, as_json))


async def _stats(
    settings: Settings, names: tuple[str, ...], interval: float, once: bool, as_json: bool
) -> None:
    async with settings.runtime() as runtime:
        for name in names:
            await runtime.get(name)  # one that is not there is told, not left out
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
    """One after the other; the first after an interval, for use is a difference."""
    before: dict[str, Use] = {use.pod: use for use in await _sample(runtime, names, {})}
    while True:
        await asyncio.sleep(interval)
        found = await _sample(runtime, names, before)
        yield found
        before = {use.pod: use for use in found}


async def _sample(runtime: Runtime, names: tuple[str, ...], before: dict[str, Use]) -> list[Use]:
    listing = await runtime.list()
    running = [
        found
        for found in listing.pods
        if found.state.value == "running" and (not names or found.id in names)
    ]
    uses = await asyncio.gather(*(_use(runtime, found, before.get(found.id)) for found in running))
    return [use for use in uses if use is not None]


async def _use(runtime: Runtime, found: PodStatus, before: Use | None) -> Use | None:
    from vc_core.engine.api.pod_views import Unanswered, within
    from vc_core.spec.errors import NotFound, StateError, VcError
    from vc_core.spec.values import VmStats

    limit_s, unanswered = runtime.config.deadlines.view, found.unanswered
    names = [one.id for one in found.containers if one.state.value == "running"]
    inside: list[ContainerStats] = []
    machine, at_s = VmStats(0, 0), time.monotonic()
    try:
        pod = await runtime.get(found.id)
        try:
            machine, at_s = await within(limit_s, pod.stats()), time.monotonic()
            names, inside = await within(limit_s, _inside(pod))
        except (NotFound, StateError):  # it ends while we look
            return None
        except (Unanswered, VcError) as error:
            unanswered = str(error)
        finally:
            with contextlib.suppress(Unanswered, VcError):
                await within(limit_s, pod.close())
    except VcError:  # it is gone, or cannot be read any more
        return None
    passed_s = at_s - before.at_s if before else 0
    percent = (
        (machine.cpu_ns - before.cpu_ns) / 1e7 / passed_s if before and machine.cpu_ns else None
    )
    limits = [one.memory_limit_bytes for one in inside]
    return Use(
        pod=found.id,
        at_s=at_s,
        cpu_ns=machine.cpu_ns,
        cpu_percent=None if percent is None else round(percent, 1),
        host_bytes=machine.resident_bytes,
        containers=len(names),
        guest_bytes=None if unanswered else sum(one.memory_bytes for one in inside),
        limit_bytes=sum(limits) if all(limits) else 0,
        read_bytes=machine.read_bytes,
        written_bytes=machine.written_bytes,
        processes=None if unanswered else sum(one.processes for one in inside),
        unanswered=unanswered,
    )


async def _inside(pod: Pod) -> tuple[list[str], list[ContainerStats]]:
    """The containers that run in it, and what each uses of the guest."""
    from vc_core.spec.errors import OperationError

    status = await pod.status()
    if status.unanswered:
        raise OperationError(status.unanswered)
    names = [one.id for one in status.containers if one.state.value == "running"]
    return names, [await pod.container(name).stats() for name in names]


def row(use: Use) -> tuple[object, ...]:
    """As a table shows it."""
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

    if Console().is_dumb_terminal:  # its cursor does not move: one table under the other
        async for found in samples:
            echo_table(COLUMNS, map(row, found))
        return
    with Live(table(COLUMNS, []), auto_refresh=False, screen=False) as live:
        async for found in samples:
            live.update(
                table(COLUMNS, [[str(cell) for cell in row(use)] for use in found]), refresh=True
            )
