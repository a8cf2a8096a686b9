"""vc template: the frozen machines that pods are cloned from."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from vc_core.cli.global_options import Settings, run_async
from vc_core.cli.render import ago, doing, echo_json, echo_table, json_option, size

if TYPE_CHECKING:
    from vc_core.engine.clones.templates import Template


@click.group()
def template() -> None:
    """Make, list and remove templates: frozen machines that pods are cloned from instead of booting."""


@template.command()
@json_option
@click.pass_obj
def create(settings: Settings, as_json: bool) -> None:
    """Make the template for pods of this configuration and print its key; does nothing when it is there."""

    async def work() -> Template:
        async with settings.runtime() as runtime:
            with doing("booting and freezing a machine"):
                return await runtime.make_template()

    made = run_async(work())
    if as_json:
        echo_json(made)
    else:
        click.echo(made.key)


@template.command("ls")
@json_option
@click.pass_obj
def ls(settings: Settings, as_json: bool) -> None:
    """List templates, the last used first, with the memory of the host that they take."""

    async def work() -> tuple[Template, ...]:
        async with settings.runtime() as runtime:
            return await runtime.templates.list()

    found = run_async(work())
    if as_json:
        echo_json(found)
        return
    rows = [
        (
            one.key,
            one.hypervisor,
            one.guest,
            f"{one.size.memory_mib} MiB",
            size(one.bytes),
            ago(one.made_ns),
        )
        for one in found
    ]
    echo_table(("TEMPLATE", "HYPERVISOR", "GUEST", "MACHINE", "SIZE", "MADE"), rows)


@template.command("rm")
@click.argument("keys", metavar="TEMPLATE...", nargs=-1)
@click.option("--all", "is_all", is_flag=True, help="Remove every one.")
@click.pass_obj
def rm(settings: Settings, keys: tuple[str, ...], is_all: bool) -> None:
    """Remove templates, by the beginning of their keys.

    Pods that were cloned go on; the next start makes a new one.
    """
    if bool(keys) == is_all:
        raise click.UsageError("name templates, or say --all")

    async def work() -> None:
        async with settings.runtime() as runtime:
            wanted = keys or [one.key for one in await runtime.templates.list()]
            for key in wanted:
                click.echo((await runtime.remove_template(key)).key)

    run_async(work())
