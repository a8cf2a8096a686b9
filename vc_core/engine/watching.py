"""Events as they happen. There is no daemon to see what ends by itself: whoever follows events looks on meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Awaitable
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from vc_core.engine.journal import Event, Journal
from vc_core.engine.states import State
from vc_core.spec.errors import VcError

if TYPE_CHECKING:
    from vc_core.engine.runtime import Runtime

_CHANGES = {"pod_started", "pod_resumed", "container_started"}


async def events(runtime: Runtime, journal: Journal) -> AsyncGenerator[Event, None]:
    """Those that are written down, and those that come, for ever."""
    began_ns = time.time_ns()
    watchers: dict[str, asyncio.Task[None]] = {}

    def watch(pod_id: str) -> None:
        if pod_id in watchers:
            watchers[pod_id].cancel()
        watchers[pod_id] = asyncio.create_task(_watch(runtime, pod_id))

    try:
        for pod in (await runtime.list()).pods:
            watch(pod.id)
        async with aclosing(journal.events(follow=True)) as following:
            async for event in following:
                yield event
                if event.event in _CHANGES and event.time_ns > began_ns:
                    watch(event.pod)
    finally:
        for task in watchers.values():
            task.cancel()
        await asyncio.gather(*watchers.values(), return_exceptions=True)


async def _watch(runtime: Runtime, pod_id: str) -> None:
    """Has what ends by itself written down, until the pod's machine has ended or it is gone."""
    with contextlib.suppress(VcError):
        pod = await runtime.get(pod_id)
        try:
            while (status := await pod.status()).state is State.RUNNING:
                running = [one.id for one in status.containers if one.state is State.RUNNING]
                await _first(*(pod.container(name).wait() for name in running), pod.ended())
                await pod.refresh()
        finally:
            await pod.close()


async def _first(*works: Awaitable[Any]) -> None:
    """Returns when one of them has."""
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
