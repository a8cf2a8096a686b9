"""vc snapshot: list and remove snapshots."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from vc_core.cli.global_options import Settings, run_async
from vc_core.cli.render import ago, echo_json, echo_table, json_option, size

if TYPE_CHECKING:
    from vc_core.engine.clones.snapshots import Snapshot


@click.group()
def snapshot() -> None:
    """List and remove snapshots.

    'vc pod snapshot' saves a pod with its memory, 'vc pod restore' starts it again.
    """


@snapshot.command("ls")
@json_option
@click.pass_obj
def ls(settings: Settings, as_json: bool) -> None:
    """List snapshots."""

    async def work() -> tuple[Snapshot, ...]:
        async with settings.runtime() as runtime:
            return await runtime.forks.snapshots.list()

    snapshots = run_async(work())
    if as_json:
        echo_json(snapshots)
        return
    rows = [
        (
            snapshot.name,
            snapshot.config.id,
            len(snapshot.containers),
            size(snapshot.bytes),
            ago(snapshot.made_ns),
        )
        for snapshot in snapshots
    ]
    echo_table(("SNAPSHOT", "POD", "CONTAINERS", "SIZE", "CREATED"), rows)


@snapshot.command("rm")
@click.argument("names", metavar="SNAPSHOT...", nargs=-1, required=True)
@click.pass_obj
def rm(settings: Settings, names: tuple[str, ...]) -> None:
    """Remove snapshots. Pods that were started from them keep running."""

    async def work() -> None:
        async with settings.runtime() as runtime:
            for name in names:
                await runtime.forks.snapshots.remove(name)
                click.echo(name)

    run_async(work())
