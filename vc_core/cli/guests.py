"""vc guest: build, list and remove guest images."""

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
    """Build, list and remove guest images: the kernel and initrd that pods boot."""


@guest.command()
@click.option(
    "--kernel", type=_file, show_default="package of the distribution", help="Kernel to use."
)
@click.option(
    "--modules",
    type=_file,
    metavar="DIR",
    show_default="/lib/modules",
    help="Modules of the kernel.",
)
@click.option("--agent", type=_file, show_default="built from source", help="Agent program to use.")
@json_option
@click.pass_obj
def build(
    settings: Settings, kernel: Path | None, modules: Path | None, agent: Path | None, as_json: bool
) -> None:
    """Build the guest image of new pods, unless it exists."""

    async def work() -> Guest:
        async with settings.runtime() as runtime:
            with _progress() as report:
                return await runtime.hooks.agent_build_guest(
                    source=KernelSource(image=kernel, modules=modules, agent=agent), report=report
                )

    _show(run_async(work()), as_json)


@guest.command("ls")
@json_option
@click.pass_obj
def ls(settings: Settings, as_json: bool) -> None:
    """List guest images; new pods boot the current image."""
    images = _all(settings)
    if as_json:
        echo_json(images)
        return
    rows = (
        (image.id, "yes" if image.is_current else "", image.description, size(image.size_bytes))
        for image in images
    )
    echo_table(("IMAGE", "CURRENT", "DESCRIPTION", "SIZE"), rows)


@guest.command()
@click.argument("image_id", metavar="IMAGE", default="")
@json_option
@click.pass_obj
def show(settings: Settings, image_id: str, as_json: bool) -> None:
    """Show a guest image, by default the current image."""
    matches = [
        image
        for image in _all(settings)
        if (image.id.startswith(image_id) if image_id else image.is_current)
    ]
    if len(matches) != 1:
        raise NotFound(
            f"{len(matches) or 'no'} guest images have an id that begins with {image_id!r}; "
            "'vc guest ls' lists them"
        )
    _show(matches[0], as_json)


@guest.command("rm")
@click.argument("image_ids", metavar="IMAGE...", nargs=-1, required=True)
@click.pass_obj
def rm(settings: Settings, image_ids: tuple[str, ...]) -> None:
    """Remove guest images.

    Running pods are not affected; a pod that boots again uses the current image.
    """

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


def _show(guest: Guest, as_json: bool) -> None:
    if as_json:
        echo_json(guest)
        return
    click.echo(f"guest image {guest.id}: {shown(guest.description)}, {size(guest.size_bytes)}")
    click.echo(f"  kernel: {shown(guest.kernel)}")
    click.echo(f"  initrd: {shown(guest.initrd)}")
    click.echo(f"  parameters: {shown(' '.join(guest.parameters))}")


@contextmanager
def _progress() -> Iterator[Callable[[str], None]]:
    """Show progress in one line on a terminal, in plain lines elsewhere."""
    if not sys.stderr.isatty():
        yield lambda line: click.echo(shown(line), err=True)
        return
    from rich.console import Console
    from rich.text import Text

    with Console(stderr=True).status("checking the guest image") as status:
        yield lambda line: status.update(Text(shown(line)))
