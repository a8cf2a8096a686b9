"""vc volume: manage volumes."""

from __future__ import annotations

import click

from vc_core.cli.global_options import Settings, run_async
from vc_core.cli.render import ago, echo_json, echo_table, json_option
from vc_core.engine.host.volumes import Volumes


@click.group()
def volume() -> None:
    """Manage volumes: directories that outlive pods, mounted with -v NAME:/path."""


@volume.command()
@click.argument("name", metavar="NAME")
@click.pass_obj
def create(settings: Settings, name: str) -> None:
    """Create a volume. -v creates a volume that does not exist, too."""
    click.echo(_volumes(settings).create(name).name)


@volume.command("ls")
@json_option
@click.pass_obj
def ls(settings: Settings, as_json: bool) -> None:
    """List volumes."""
    volumes = _volumes(settings).list()
    if as_json:
        echo_json(volumes)
        return
    echo_table(
        ("VOLUME", "CHANGED", "DIRECTORY"),
        ((volume.name, ago(volume.changed_ns), volume.path) for volume in volumes),
    )


@volume.command()
@click.argument("name", metavar="NAME")
@click.pass_obj
def inspect(settings: Settings, name: str) -> None:
    """Print details of a volume as JSON."""
    echo_json(_volumes(settings).get(name))


@volume.command("rm")
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@click.pass_obj
def rm(settings: Settings, names: tuple[str, ...]) -> None:
    """Remove volumes and their contents. Volumes in use by a container are kept."""

    async def work() -> None:
        async with settings.runtime() as runtime:
            for name in names:
                await runtime.remove_volume(name)
                click.echo(name)

    run_async(work())


def _volumes(settings: Settings) -> Volumes:
    return Volumes(settings.load_config().volume.dir)
