"""vc pool: machines that are started in advance."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess

import click

from vc_core.cli.global_options import Settings, run_async
from vc_core.cli.render import ago, doing, echo_json, echo_table, json_option
from vc_core.spec.errors import VcError


@click.group()
def pool() -> None:
    """Keep machines ready for pods that are started with --start pool."""


@pool.command()
@click.option(
    "--size",
    "count",
    type=click.IntRange(1),
    metavar="N",
    show_default="pool.size",
    help="Number of machines.",
)
@click.pass_obj
def start(settings: Settings, count: int | None) -> None:
    """Start a process that keeps machines ready, and return when they are ready."""
    from vc_core.engine.clones import pool_process

    config = settings.load_config()
    size = count or config.pool.size
    with doing(f"starting {size} machines"):
        process = pool_process.spawn(config, size, subprocess.PIPE)
        first_line = b""
        if process is not None and process.stdout is not None:
            with process.stdout as output:
                first_line = output.readline()
    if first_line.strip() != pool_process.READY.encode():
        log_lines = (
            (config.template.dir / "pool" / pool_process.LOG).read_text().strip().splitlines()
        )
        raise VcError(
            (
                log_lines[-1] if log_lines else "the pool's process ended without an error message"
            ).removeprefix("vc: error: ")
        )
    click.echo(f"{size} machines are ready; use 'vc pool stop' to stop them", err=True)


@pool.command()
@click.pass_obj
def stop(settings: Settings) -> None:
    """Stop the process that keeps machines ready, and its unused machines."""

    async def work() -> bool:
        async with settings.runtime() as runtime:
            return await runtime.pool.stop(runtime.hooks)

    if not run_async(work()):
        click.echo("no process keeps machines ready", err=True)


@pool.command("ls")
@json_option
@click.pass_obj
def ls(settings: Settings, as_json: bool) -> None:
    """List the ready machines, the oldest first."""

    async def work() -> None:
        async with settings.runtime() as runtime:
            machines = runtime.pool.list()
            if as_json:
                echo_json(machines)
            else:
                echo_table(
                    ("MACHINE", "TEMPLATE", "CREATED"),
                    [(machine.id, machine.key, ago(machine.made_ns)) for machine in machines],
                )
                if not runtime.pool.poke():
                    click.echo("no process keeps machines ready; use 'vc pool start'", err=True)

    run_async(work())


@pool.command(hidden=True)
@click.option("--size", "count", type=click.IntRange(1), required=True)
@click.pass_obj
def keep(settings: Settings, count: int) -> None:
    """Run the process that keeps machines ready."""
    from vc_core.engine.api import pool_keeper
    from vc_core.engine.clones import pool_process

    was_ready = False

    def tell() -> None:
        nonlocal was_ready
        was_ready = True
        with contextlib.suppress(BrokenPipeError):  # the command that waited for it is gone
            click.echo(pool_process.READY)

    fifo = pool_process.hold_fifo()

    async def work() -> None:
        async with settings.runtime() as runtime:
            me = asyncio.current_task()
            if me is not None:
                for number in (signal.SIGTERM, signal.SIGINT):
                    asyncio.get_running_loop().add_signal_handler(number, me.cancel)
            with contextlib.suppress(asyncio.CancelledError):
                await pool_keeper.keep(runtime, count, tell, lambda: os.close(fifo))
                if not was_ready:
                    raise VcError("the pool was stopped while it was started")

    run_async(work())
