"""The stream of events, as they happen.

There is no daemon that notices when a machine or container ends by itself, so the process that
follows events watches the pods.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncGenerator, Awaitable
from contextlib import aclosing
from typing import Any, Protocol

from msgspec import Struct

from vc_core.engine.api.pod import Pod
from vc_core.engine.api.pod_listing import Listing
from vc_core.engine.state.event_journal import Event, Journal
from vc_core.engine.state.states import ALIVE, State
from vc_core.spec.errors import NotFound, VcError

log = logging.getLogger(__name__)

_PAUSE_S = 1
_DENIALS_S = 5  # nothing tells of a packet that was refused
_CHANGES = {"pod_started", "pod_resumed", "container_started"}


class Pods(Protocol):
    """The operations of the runtime whose events are followed."""

    async def list(self) -> Listing:
        """See `Runtime.list`."""

    async def get(self, pod_id: str) -> Pod:
        """See `Runtime.get`."""


async def events(pods: Pods, journal: Journal) -> AsyncGenerator[Event, None]:
    """Yields the events of the journal, then new ones without an end."""
    began_ns = time.time_ns()
    watchers: dict[str, _Watcher] = {}

    def watch(pod_id: str) -> None:
        if pod_id in watchers and not watchers[pod_id].task.done():
            watchers[pod_id].has_changed.set()
        else:
            has_changed = asyncio.Event()
            watchers[pod_id] = _Watcher(
                asyncio.create_task(_watch(pods, pod_id, has_changed)), has_changed
            )

    try:
        for pod in (await pods.list()).pods:
            watch(pod.id)
        async with aclosing(journal.events(follow=True)) as following:
            async for event in following:
                yield event
                if event.event in _CHANGES and event.time_ns > began_ns:
                    watch(event.pod)
    finally:
        for watcher in watchers.values():
            watcher.task.cancel()
        await asyncio.gather(
            *(watcher.task for watcher in watchers.values()), return_exceptions=True
        )


class _Watcher(Struct, frozen=True):
    """The task that watches a pod, and the event that makes it look again."""

    task: asyncio.Task[None]
    has_changed: asyncio.Event


async def _watch(pods: Pods, pod_id: str, has_changed: asyncio.Event) -> None:
    """Records what ends by itself in the journal, until the machine or the pod is gone."""
    try:
        pod = await pods.get(pod_id)
    except NotFound:
        return
    try:
        while True:
            has_changed.clear()
            try:
                if not await _look(pod, has_changed):
                    return
            except VcError as error:  # the pod is busy or ending: look again
                if isinstance(error, NotFound) and await _is_deleted(pods, pod_id):
                    return
                log.info("pod %s could not be looked at: %s", pod_id, error)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(has_changed.wait(), _PAUSE_S)
    finally:
        with contextlib.suppress(VcError):
            await pod.close()


async def _is_deleted(pods: Pods, pod_id: str) -> bool:
    """Returns whether the pod was deleted; "not found" may also come from a pod's guest."""
    try:
        await pods.get(pod_id)
    except NotFound:
        return True
    except VcError:  # it cannot be read now
        return False
    return False


async def _look(pod: Pod, has_changed: asyncio.Event) -> bool:
    """Records what has ended, and waits for the next end; returns whether the pod still runs."""
    await pod.refresh()
    status = await pod.status()
    if status.state not in ALIVE:
        return has_changed.is_set()
    running = [one.id for one in status.containers if one.state is State.RUNNING]
    works: list[Awaitable[Any]] = [pod.container(name).wait() for name in running]
    if status.config.network is not None and status.is_connected:
        await pod.network_denials()
        works.append(asyncio.sleep(_DENIALS_S))
    await _first(*works, pod.ended(), has_changed.wait())
    return True


async def _first(*works: Awaitable[Any]) -> None:
    """Returns when the first of `works` has ended; raises its exception."""
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
