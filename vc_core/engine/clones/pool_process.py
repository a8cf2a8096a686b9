"""Starts the process that keeps a pool full.

It is an ordinary process: when it is killed, no machines are started in advance.
"""

from __future__ import annotations

import fcntl
import logging
import os
import subprocess
import threading

from vc_core.config import Config
from vc_core.driver_kit.ownership import private_folder
from vc_core.driver_kit.programs import own_command, python_environment
from vc_core.engine.clones import pool_signals

log = logging.getLogger(__name__)

READY = "ready"
"""The line that the process writes each time that all machines are ready."""
LOG = "keeper.log"
WAITING = "vc-pool-keeper"
"""The name of threads that wait for the end of a keeper."""
_SETTING = "template.dir"


def spawn(
    config: Config, size: int, output: int = subprocess.DEVNULL
) -> subprocess.Popen[bytes] | None:
    """Starts a keeper that outlives this process.

    Returns None when another process would be unable to read the configuration or to run
    this program.

    Args:
        config: the configuration, from a file or the defaults.
        size: number of waiting machines.
        output: receives a line each time that all machines are ready.
    """
    if config.source is None and config != Config():
        log.info("the pool is not kept ready: its configuration is not in a file")
        return None
    try:
        words = own_command()
    except FileNotFoundError as error:
        log.warning("the pool is not kept ready: %s", error)
        return None
    named = ["--config", str(config.source.absolute())] if config.source else []
    folder = private_folder(private_folder(config.template.dir, _SETTING) / "pool", _SETTING)
    handle = os.open(
        folder / LOG, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600
    )
    fifo = pool_signals.open_fifo(folder / pool_signals.FIFO)
    try:
        keeper = subprocess.Popen(
            [*words, *named, "pool", "keep", "--size", str(size)],
            cwd="/",
            env=python_environment(),
            umask=0o077,
            stdin=fifo,
            stdout=output,
            stderr=handle,
            start_new_session=True,
        )
        # It may outlive this process: subprocess must not warn that it was not waited for. When it
        # does not, it must not stay as a dead child.
        keeper.returncode = 0
        threading.Thread(target=os.waitpid, args=(keeper.pid, 0), name=WAITING, daemon=True).start()
        return keeper
    finally:
        os.close(fifo)
        os.close(handle)


def hold_fifo() -> int:
    """Moves the FIFO away from standard input, in the keeper, which `spawn` has given it there.

    Returns its descriptor, which holds the words that come before the keeper has its own. Programs
    that the keeper starts do not inherit it.
    """
    fifo = fcntl.fcntl(0, fcntl.F_DUPFD_CLOEXEC, 3)
    null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    os.dup2(null, 0)
    os.close(null)
    return fifo
