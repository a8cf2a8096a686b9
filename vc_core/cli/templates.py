"""vc template: manage the saved machines that pods are cloned from."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from vc_core.cli.global_options import Settings, run_async
from vc_core.cli.render import ago, doing, echo_json, echo_table, json_option, size

if TYPE_CHECKING:
    from vc_core.engine.clones.templates import Template


@click.group()
def template() -> None:
    """Manage templates: booted and saved machines that pods are cloned from."""


@template.command()
@json_option
@click.pass_obj
def create(settings: Settings, as_json: bool) -> None:
    """Create the template for the current configuration, unless it exists; print its key."""

    async def work() -> Template:
        async with settings.runtime() as runtime:
            with doing("booting and saving a machine"):
                return await runtime.make_template()

    created = run_async(work())
    if as_json:
        echo_json(created)
    else:
        click.echo(created.key)


@template.command("ls")
@json_option
@click.pass_obj
def ls(settings: Settings, as_json: bool) -> None:
    """List templates, the last used first, with the host memory that they use."""

    async def work() -> tuple[Template, ...]:
        async with settings.runtime() as runtime:
            return await runtime.templates.list()

    templates = run_async(work())
    if as_json:
        echo_json(templates)
        return
    rows = [
        (
            template.key,
            template.hypervisor,
            template.guest,
            f"{template.size.memory_mib} MiB",
            size(template.bytes),
            ago(template.made_ns),
        )
        for template in templates
    ]
    echo_table(("TEMPLATE", "HYPERVISOR", "GUEST", "MACHINE", "SIZE", "CREATED"), rows)


@template.command("rm")
@click.argument("keys", metavar="TEMPLATE...", nargs=-1)
@click.option("--all", "is_all", is_flag=True, help="Remove all templates.")
@click.pass_obj
def rm(settings: Settings, keys: tuple[str, ...], is_all: bool) -> None:
    """Remove templates, given by their keys or prefixes of them.

    Pods that were cloned keep running; the next start creates a new template.
    """
    if bool(keys) == is_all:
        raise click.UsageError("give either TEMPLATE or --all")

    async def work() -> None:
        async with settings.runtime() as runtime:
            chosen = keys or [template.key for template in await runtime.templates.list()]
            for key in chosen:
                click.echo((await runtime.remove_template(key)).key)

    run_async(work())
