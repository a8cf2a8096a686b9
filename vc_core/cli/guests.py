"""vc guest: guest images."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from vc_core.cli.escapes import shown
from vc_core.cli.global_options import Settings, run_async
from vc_core.cli.render import echo_json, echo_table, json_option, size
from vc_core.spec.errors import NotFound
from vc_core.spec.values import Guest, KernelSource

_file = click.Path(path_type=Path)


@click.group()
def guest() -> None:
    """Build and list guest images: the kernel and initrd that every pod boots."""


@guest.command()
@click.option(
    "--kernel", type=_file, help="A kernel of this host; the distribution's package by default."
)
@click.option(
    "--modules", type=_file, metavar="DIR", help="Its modules, when they are not in /lib/modules."
)
@click.option("--agent", type=_file, help="An agent's program; built by default.")
@json_option
@click.pass_obj
def build(
    settings: Settings, kernel: Path | None, modules: Path | None, agent: Path | None, as_json: bool
) -> None:
    """Make the image for new pods; does nothing when it is there."""

    async def work() -> Guest:
        async with settings.runtime() as runtime:
            with _progress() as report:
                return await runtime.hooks.agent_build_guest(
                    source=KernelSource(kernel, modules, agent), report=report
                )

    _show(run_async(work()), as_json)


@guest.command("ls")
@json_option
@click.pass_obj
def ls(settings: Settings, as_json: bool) -> None:
    """List images; new pods get the current one."""
    found = _all(settings)
    if as_json:
        echo_json(found)
        return
    rows = (
        (one.id, "yes" if one.is_current else "", one.description, size(one.size_bytes))
        for one in found
    )
    echo_table(("IMAGE", "CURRENT", "DESCRIPTION", "SIZE"), rows)


@guest.command()
@click.argument("image_id", metavar="IMAGE", default="")
@json_option
@click.pass_obj
def show(settings: Settings, image_id: str, as_json: bool) -> None:
    """Show one image, the current one by default."""
    found = [
        one
        for one in _all(settings)
        if (one.id.startswith(image_id) if image_id else one.is_current)
    ]
    if len(found) != 1:
        raise NotFound(
            f"{len(found) or 'no'} guest images begin with {image_id!r}; 'vc guest ls' lists them"
        )
    _show(found[0], as_json)


@guest.command("rm")
@click.argument("image_ids", metavar="IMAGE...", nargs=-1, required=True)
@click.pass_obj
def rm(settings: Settings, image_ids: tuple[str, ...]) -> None:
    """Remove images. A running pod goes on; one that boots again takes the current image."""

    async def work() -> None:
        async with settings.runtime() as runtime:
            for image_id in image_ids:
                click.echo((await runtime.hooks.agent_remove_guest(guest_id=image_id)).id)

    run_async(work())


def _all(settings: Settings) -> tuple[Guest, ...]:
    async def work() -> tuple[Guest, ...]:
        async with settings.runtime() as runtime:
            return await runtime.hooks.agent_list_guests()

    return run_async(work())


def _show(found: Guest, as_json: bool) -> None:
    if as_json:
        echo_json(found)
        return
    click.echo(f"guest image {found.id}: {shown(found.description)}, {size(found.size_bytes)}")
    click.echo(f"  kernel: {shown(found.kernel)}")
    click.echo(f"  initrd: {shown(found.initrd)}")
    click.echo(f"  parameters: {shown(' '.join(found.parameters))}")


@contextmanager
def _progress() -> Iterator[Callable[[str], None]]:
    """A line that moves on a terminal, plain lines elsewhere."""
    if not sys.stderr.isatty():
        yield lambda line: click.echo(shown(line), err=True)
        return
    from rich.console import Console
    from rich.text import Text

    with Console(stderr=True).status("looking for what is there") as status:
        yield lambda line: status.update(Text(shown(line)))
