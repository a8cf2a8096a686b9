"""vc snapshot: pods that were saved with their memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from vc_core.cli.global_options import Settings, run_async
from vc_core.cli.render import ago, echo_json, echo_table, json_option, size

if TYPE_CHECKING:
    from vc_core.engine.clones.snapshots import Snapshot


@click.group()
def snapshot() -> None:
    """List and remove saved pods: 'vc pod snapshot' makes one, 'vc pod restore' starts it."""


@snapshot.command("ls")
@json_option
@click.pass_obj
def ls(settings: Settings, as_json: bool) -> None:
    """List snapshots."""

    async def work() -> tuple[Snapshot, ...]:
        async with settings.runtime() as runtime:
            return await runtime.forks.snapshots.list()

    found = run_async(work())
    if as_json:
        echo_json(found)
        return
    rows = [
        (one.name, one.config.id, len(one.containers), size(one.bytes), ago(one.made_ns))
        for one in found
    ]
    echo_table(("SNAPSHOT", "POD", "CONTAINERS", "SIZE", "MADE"), rows)


@snapshot.command("rm")
@click.argument("names", metavar="SNAPSHOT...", nargs=-1, required=True)
@click.pass_obj
def rm(settings: Settings, names: tuple[str, ...]) -> None:
    """Remove snapshots. Pods that were started from them go on."""

    async def work() -> None:
        async with settings.runtime() as runtime:
            for name in names:
                await runtime.forks.snapshots.remove(name)
                click.echo(name)

    run_async(work())
