"""The process that keeps a pool full.

An ordinary one: whoever kills it loses only the next machine in advance.
"""

from __future__ import annotations

import logging
import os
import subprocess
from collections.abc import Callable
from typing import TYPE_CHECKING

from vc_core.config import Config
from vc_core.driver_kit.ownership import private_folder
from vc_core.driver_kit.programs import own_command, python_environment

if TYPE_CHECKING:
    from vc_core.engine.api.runtime import Runtime

log = logging.getLogger(__name__)

READY = "ready"
LOG = "keeper.log"
_SETTING = "template.dir"


async def keep(runtime: Runtime, size: int, tell: Callable[[], None]) -> None:
    """Keeps `size` machines waiting until it is told to quit or cancelled; then those that nobody has taken are ended.

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
    pool, wish = runtime.pool, await runtime.wish()
    key = await runtime.templates.key(runtime.hooks, wish)
    for waiting in pool.list():
        if waiting.key != key or not await pool.is_alive(waiting):
            log.info("a machine of the pool is of no use any more: %s", waiting.id)
            await pool.drop(waiting)
    found = pool.list()
    for waiting in found[size:]:
        await pool.drop(waiting)
    for _ in range(size - len(found)):
        await pool.make(runtime.hooks, wish)


def spawn(
    config: Config, size: int, output: int = subprocess.DEVNULL
) -> subprocess.Popen[bytes] | None:
    """Starts a keeper that outlives this process; None when no other process could read the configuration or run us.

    Args:
        config: from a file, or the defaults.
        size: how many machines wait.
        output: gets a line each time that all are there.
    """
    if config.source is None and config != Config():
        log.info("nobody keeps the pool: its configuration is not in a file")
        return None
    try:
        words = own_command()
    except FileNotFoundError as error:
        log.warning("nobody keeps the pool: %s", error)
        return None
    named = ["--config", str(config.source.absolute())] if config.source else []
    folder = private_folder(private_folder(config.template.dir, _SETTING) / "pool", _SETTING)
    handle = os.open(
        folder / LOG, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600
    )
    try:
        keeper = subprocess.Popen(
            [*words, *named, "pool", "keep", "--size", str(size)],
            cwd="/",
            env=python_environment(),
            umask=0o077,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=handle,
            start_new_session=True,
        )
        keeper.returncode = (
            0  # it outlives us: subprocess need not warn that nobody has waited for it
        )
        return keeper
    finally:
        os.close(handle)
