"""The work of the pool process, which `vc_core.engine.clones.pool_process` starts."""

from __future__ import annotations

import logging
from collections.abc import Callable

from vc_core.engine.api.runtime import Runtime

log = logging.getLogger(__name__)


async def keep(
    runtime: Runtime,
    size: int,
    tell: Callable[[], None],
    begun: Callable[[], None] = lambda: None,
) -> None:
    """Keeps `size` machines waiting until it is cancelled or told to quit; then ends unused ones.

    Args:
        runtime: the runtime of the pool.
        size: number of waiting machines.
        tell: called each time that all of them are ready.
        begun: called when this process receives what the pool is told.

    Raises:
        Busy: another process keeps this pool.
    """
    pool = runtime.pool
    async with pool.keeping() as poked:
        begun()
        await pool.sweep(runtime.hooks)
        try:
            pool.poke()
            while await poked():  # also between two machines: `pool stop` does not wait for all
                if await _make_one(runtime, size):
                    pool.poke()
                else:
                    tell()
        finally:
            for waiting in pool.list():
                await pool.drop(waiting)
            await pool.end_lost()


async def fill(runtime: Runtime, size: int) -> None:
    """Starts the missing machines for new pods of this configuration; ends all other waiting ones.

    Only for the holder of the keeper's lock: its next holder removes machines that a dead keeper
    left incomplete.
    """
    while await _make_one(runtime, size):
        pass


async def _make_one(runtime: Runtime, size: int) -> bool:
    """Does one step of `fill`; returns whether it has made a machine."""
    pool, request = runtime.pool, await runtime.template_request()
    key = await runtime.templates.key(runtime.hooks, request)
    await pool.end_lost()
    for waiting in pool.list():
        if waiting.key != key or not await pool.is_alive(waiting):
            log.info("a machine of the pool is of no use any more: %s", waiting.id)
            await pool.drop(waiting)
    found = pool.list()
    for waiting in found[size:]:
        await pool.drop(waiting)
    if len(found) >= size:
        return False
    await pool.make(runtime.hooks, request)
    return True
