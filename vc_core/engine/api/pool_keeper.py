"""What the process that keeps a pool full does. `vc_core.engine.clones.pool_process` starts it."""

from __future__ import annotations

import logging
from collections.abc import Callable

from vc_core.engine.api.runtime import Runtime

log = logging.getLogger(__name__)


async def keep(runtime: Runtime, size: int, tell: Callable[[], None]) -> None:
    """Keeps `size` machines waiting until it is told to quit or cancelled; then those that nobody
    has taken are ended.

    Args:
        runtime: whose pool it is.
        size: how many wait.
        tell: called each time that all are there.

    Raises:
        Busy: another process keeps this pool.
    """
    pool = runtime.pool
    async with pool.keeping() as poked:
        await pool.sweep(runtime.hooks)
        try:
            goes_on = True
            while goes_on:
                await fill(runtime, size)
                tell()
                goes_on = await poked()
        finally:
            for waiting in pool.list():
                await pool.drop(waiting)


async def fill(runtime: Runtime, size: int) -> None:
    """Makes what is missing of the machines that new pods want now, and ends all others that wait.

    Only for who has the keeper's right: whoever gets that next takes what is half made for a dead
    keeper's.
    """
    pool, request = runtime.pool, await runtime.template_request()
    key = await runtime.templates.key(runtime.hooks, request)
    for waiting in pool.list():
        if waiting.key != key or not await pool.is_alive(waiting):
            log.info("a machine of the pool is of no use any more: %s", waiting.id)
            await pool.drop(waiting)
    found = pool.list()
    for waiting in found[size:]:
        await pool.drop(waiting)
    for _ in range(size - len(found)):
        await pool.make(runtime.hooks, request)
