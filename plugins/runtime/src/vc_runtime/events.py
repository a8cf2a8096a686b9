"""The command `events`: statistics of a container, and that it was short of memory, as JSON lines.

The words are those of runc's events (its types/events.go), for what the guest tells.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import stat
import sys
from argparse import Namespace
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager

from vc_core import Container, Runtime
from vc_core.driver_kit.timeouts import timeout_after
from vc_core.spec import Busy, ContainerStats, StateError, VcError
from vc_runtime import cgroups
from vc_runtime.errors import RuntimeFailure, not_running
from vc_runtime.records import Record, Records

_NO_LIMIT = (1 << 64) - 1  # what runc prints then
_LOOK_S = 1.0  # how often the guest is asked whether memory was short: it tells nothing by itself
_ANSWER_S = 30.0
_END_S = 10.0  # for a stand-in to end, whose guest has gone
_UNITS_S = {"h": 3600, "m": 60, "s": 1, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
_PART = r"(\d{1,18}(?:\.\d{0,18})?)(h|ms|m|s|us|µs|ns)"


def events(found: Namespace) -> int:
    """Prints statistics once, or again and again until the container ends."""
    interval_s = _seconds(found.interval)
    records = Records(found.root)
    record = records.get(found.id)
    if record.status not in ("running", "paused"):
        raise not_running(found.id)
    try:
        if found.stats:
            asyncio.run(_once(record))
        else:
            asyncio.run(_follow(record, records.group(record.id), interval_s))
    except BrokenPipeError:
        # Nobody reads. Python would complain when it closes the stream.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _seconds(text: str) -> float:
    """Returns a duration of Go's notation in seconds.

    Raises:
        RuntimeFailure: it is none, or not longer than nothing.
    """
    parts = re.findall(_PART, text)
    seconds = sum(float(number) * _UNITS_S[unit] for number, unit in parts)
    if "".join(number + unit for number, unit in parts) != text or seconds <= 0:
        raise RuntimeFailure(f"--interval: {text!r} is not a time above 0, such as 5s or 500ms")
    return seconds


@asynccontextmanager
async def _opened(record: Record) -> AsyncIterator[Container]:
    record.restore_environment()
    async with Runtime.open() as runtime:
        yield (await runtime.get(record.pod)).container(record.container)


async def _once(record: Record) -> None:
    async with _opened(record) as container:
        _print_stats(record, *await _measured(container))


async def _follow(record: Record, group: str, interval_s: float) -> None:
    """Prints statistics in intervals, and each lack of memory, until the stand-in has ended.

    Raises:
        BrokenPipeError: nobody reads any more.
        RuntimeFailure: the guest does not answer, and the container runs.
        VcError: it refuses.
    """
    kills_on_host = cgroups.oom_kills(group)
    loop = asyncio.get_running_loop()
    async with _opened(record) as container:
        over = asyncio.ensure_future(_over(record))
        kills, printed_s = None, -interval_s
        try:
            while not over.done():
                try:
                    measured = await _before(over, _measured(container))
                    if measured is None:
                        break
                    found, most_pids = measured
                except (Busy, StateError):  # another command has the pod, or it is paused
                    await _wait(over, _LOOK_S)
                    continue
                except (VcError, RuntimeFailure):
                    if await record.stand_in.ended_within(_END_S):
                        break
                    raise
                if kills is not None and found.oom_kills > kills:
                    _print(record, "oom")
                kills = found.oom_kills
                if loop.time() - printed_s >= interval_s:
                    printed_s = loop.time()
                    _print_stats(record, found, most_pids)
                await _wait(over, min(_LOOK_S, printed_s + interval_s - loop.time()))
            # The guest's kernel has killed the first process, and the host's the stand-in: see
            # oom.rs. The guest may have told that, too: two events are better than none. The engine
            # removes the group soon.
            if cgroups.oom_kills(group) > kills_on_host:
                _print(record, "oom")
            if over.done():
                over.result()
        finally:
            over.cancel()


async def _wait(over: asyncio.Future[None], seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        async with timeout_after(max(0.0, seconds)):
            await asyncio.shield(over)


async def _before(
    over: asyncio.Future[None], asking: Coroutine[None, None, tuple[ContainerStats, int]]
) -> tuple[ContainerStats, int] | None:
    """Returns the answer; None when the stand-in ends first, as the guest may never answer."""
    answer = asyncio.ensure_future(asking)
    try:
        await asyncio.wait((answer, over), return_when=asyncio.FIRST_COMPLETED)
        return answer.result() if answer.done() else None
    finally:
        answer.cancel()


async def _over(record: Record) -> None:
    """Returns when the stand-in has ended.

    Raises:
        BrokenPipeError: nobody reads what is printed. A pipe tells that before it is written to.
    """
    output = sys.stdout.fileno()
    if not stat.S_ISFIFO(os.fstat(output).st_mode):
        await record.stand_in.ended()
        return
    loop = asyncio.get_running_loop()
    unread = asyncio.Event()
    loop.add_reader(output, unread.set)
    ended = asyncio.ensure_future(record.stand_in.ended())
    unwanted = asyncio.ensure_future(unread.wait())
    try:
        await asyncio.wait((ended, unwanted), return_when=asyncio.FIRST_COMPLETED)
        if not ended.done():
            raise BrokenPipeError
    finally:
        ended.cancel()
        unwanted.cancel()
        loop.remove_reader(output)


async def _measured(container: Container) -> tuple[ContainerStats, int]:
    """Returns the use of a container, and its limit of processes.

    Raises:
        RuntimeFailure: the guest does not answer.
    """
    try:
        async with timeout_after(_ANSWER_S):
            return await container.stats(), (await container.spec()).resources.pids
    except TimeoutError:
        raise RuntimeFailure(f"the guest has not answered within {_ANSWER_S:.0f} s") from None


def _print_stats(record: Record, found: ContainerStats, most_pids: int) -> None:
    memory = {
        "limit": found.memory_limit_bytes or _NO_LIMIT,
        "usage": found.memory_bytes,
    }
    pids = {"current": found.processes, **({"limit": most_pids} if most_pids else {})}
    cpu = {"total": found.cpu_ns, "user": found.user_cpu_ns, "kernel": found.system_cpu_ns}
    data = {
        "cpu": {"usage": cpu},
        "memory": {"usage": memory},
        "pids": pids,
    }
    _print(record, "stats", data=data)


def _print(record: Record, kind: str, **more: object) -> None:
    sys.stdout.write(json.dumps({"type": kind, "id": record.id, **more}) + "\n")
    sys.stdout.flush()
