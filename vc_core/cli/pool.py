"""vc pool: machines made in advance."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import subprocess

import click

from vc_core.cli.global_options import Settings, run_async
from vc_core.cli.render import ago, doing, echo_json, echo_table, json_option
from vc_core.spec.errors import VcError


@click.group()
def pool() -> None:
    """Keep machines ready that pods take instead of cloning their own: --start pool."""


@pool.command()
@click.option(
    "--size", "count", type=click.IntRange(1), help="How many wait; pool.size by default."
)
@click.pass_obj
def start(settings: Settings, count: int | None) -> None:
    """Start a process that keeps machines ready, and return when they are."""
    from vc_core.engine.api import pool_keeper

    config = settings.load_config()
    wanted = count or config.pool.size
    with doing(f"making {wanted} machines"):
        process = pool_keeper.spawn(config, wanted, subprocess.PIPE)
        told = b""
        if process is not None and process.stdout is not None:
            with process.stdout as output:
                told = output.readline()
    if told.strip() != pool_keeper.READY.encode():
        said = (config.template.dir / "pool" / pool_keeper.LOG).read_text().strip().splitlines()
        raise VcError(
            (said[-1] if said else "the keeper ended and said nothing").removeprefix("vc: error: ")
        )
    click.echo(f"{wanted} machines wait; 'vc pool stop' ends them", err=True)


@pool.command()
@click.pass_obj
def stop(settings: Settings) -> None:
    """End the process that keeps machines ready, and those that nobody has taken."""

    async def work() -> bool:
        async with settings.runtime() as runtime:
            was_kept = await runtime.pool.end_keeper()
            for waiting in runtime.pool.list():  # of one that was killed
                await runtime.pool.drop(waiting)
            return was_kept

    if not run_async(work()):
        click.echo("nobody keeps this pool", err=True)


@pool.command("ls")
@json_option
@click.pass_obj
def ls(settings: Settings, as_json: bool) -> None:
    """List the machines that wait, the oldest first."""

    async def work() -> None:
        async with settings.runtime() as runtime:
            found = runtime.pool.list()
            if as_json:
                echo_json(found)
            else:
                echo_table(
                    ("MACHINE", "TEMPLATE", "MADE"),
                    [(one.id, one.key, ago(one.made_ns)) for one in found],
                )
                if not runtime.pool.poke():
                    click.echo("nobody keeps this pool; 'vc pool start' does", err=True)

    run_async(work())


@pool.command(hidden=True)
@click.option("--size", "count", type=click.IntRange(1), required=True)
@click.pass_obj
def keep(settings: Settings, count: int) -> None:
    """Be the process that keeps machines ready."""
    from vc_core.engine.api import pool_keeper

    def tell() -> None:
        with contextlib.suppress(BrokenPipeError):  # whoever waited for it has gone
            click.echo(pool_keeper.READY)

    async def work() -> None:
        async with settings.runtime() as runtime:
            me = asyncio.current_task()
            if me is not None:
                for number in (signal.SIGTERM, signal.SIGINT):
                    asyncio.get_running_loop().add_signal_handler(number, me.cancel)
            with contextlib.suppress(asyncio.CancelledError):
                await pool_keeper.keep(runtime, count, tell)

    run_async(work())
