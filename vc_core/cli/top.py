"""vc top: a live screen of all pods."""

from __future__ import annotations

import sys

import click

from vc_core.cli.global_options import Settings, run_async
from vc_core.first_party import pip_install
from vc_core.spec.errors import InvalidRequest


@click.command("top")
@click.option(
    "--interval",
    default=1.0,
    show_default=True,
    type=click.FloatRange(0.1),
    metavar="SECONDS",
    help="Time between updates.",
)
@click.pass_obj
def top(settings: Settings, interval: float) -> None:
    """Show pods, containers, processes, logs and events on a live screen.

    The arrow keys select a pod, Tab moves to its containers, q quits.
    """
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise InvalidRequest(
            "vc top needs a terminal; use 'vc stats --json' or 'vc events -f --json' in programs"
        )
    try:
        from vc_core.cli.top_screen import Screen
    except ImportError as error:
        raise InvalidRequest(
            f"vc top needs textual ({error}); run: {pip_install('top')}"
        ) from error

    async def work() -> None:
        async with settings.runtime() as runtime:
            await Screen(runtime, interval).run_async()

    run_async(work())
