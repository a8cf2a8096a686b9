"""vc image: what containers start from."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from vc_core.cli import completion
from vc_core.cli.escapes import shown
from vc_core.cli.global_options import Settings, run_async
from vc_core.cli.key_values import pairs
from vc_core.cli.render import ago, echo_json, echo_table, json_option, size
from vc_core.signals import signal_number
from vc_core.spec.errors import InvalidRequest

if TYPE_CHECKING:
    from vc_core.images import Image, ImageConfig, Progress
    from vc_core.images.source import Source

F = TypeVar("F", bound=Callable[..., Any])


_image = click.argument("image", metavar="IMAGE", shell_complete=completion.images)
_name_option = click.option(
    "--name", default="", metavar="NAME[:TAG]", help="What it is called here."
)
_platform_option = click.option(
    "--platform",
    default="",
    metavar="OS/ARCHITECTURE",
    help="Take an image for another kind of machine, as in linux/arm64. Its programs do not run here.",
)

_CONFIG = (
    click.option("--entrypoint", metavar="WORDS", help="Words before every command."),
    click.option("--cmd", metavar="WORDS", help="The command where the user gives none."),
    click.option("--env", "-e", multiple=True, metavar="NAME=VALUE", help="A variable."),
    click.option("--user", "-u", default="", metavar="USER[:GROUP]", help="Who runs the command."),
    click.option("--workdir", "-w", default="", metavar="DIR", help="Where the command starts."),
    click.option(
        "--volume",
        "volumes",
        multiple=True,
        metavar="DIR",
        help="Can be written in a read-only root, too.",
    ),
    click.option(
        "--stop-signal", default="", metavar="SIGNAL", help="What asks the command to end."
    ),
    click.option(
        "--label",
        "labels",
        multiple=True,
        metavar="KEY=VALUE",
        help="Containers get it as an annotation.",
    ),
)


def _config_options(function: F) -> F:
    for option in reversed(_CONFIG):
        function = option(function)
    return function


@click.group()
def image() -> None:
    """Fetch, make, list and remove images.

    Each is one read-only file that all its containers share.
    """


@image.command()
@click.argument("reference", metavar="REFERENCE")
@_name_option
@click.option(
    "--insecure", is_flag=True, help="The registry has no certificate, or one that nobody knows."
)
@_platform_option
@json_option
@click.pass_obj
def pull(
    settings: Settings, reference: str, name: str, insecure: bool, platform: str, as_json: bool
) -> None:
    """Fetch an image from a registry, by skopeo, with the credentials that 'skopeo login' has stored.

    \b
    vc image pull debian:12
    vc image pull registry.example/team/app:1.0
    vc image pull containers-storage://localhost/app
                                whatever else skopeo can read
    """
    from vc_core.images.platforms import Platform
    from vc_core.images.sources import of_reference

    called = name or reference.rpartition("//")[2].partition("@")[0]
    _take(settings, of_reference(reference, insecure, Platform.parse(platform)), called, as_json)


@image.command("import")
@click.argument("path", metavar="PATH|-", type=click.Path(path_type=Path))
@click.argument("name", metavar="NAME[:TAG]")
@click.option("--tag", default="", help="Which image of a layout or archive that has several.")
@click.option(
    "--format",
    "format_name",
    type=click.Choice(["rootfs", "docker-archive", "oci-archive"]),
    help="What an archive holds, where that cannot be found out from its content.",
)
@_platform_option
@_config_options
@json_option
@click.pass_obj
def import_(
    settings: Settings,
    /,
    path: Path,
    name: str,
    tag: str,
    format_name: str | None,
    platform: str,
    as_json: bool,
    **options: Any,
) -> None:
    """Take an image from a file or folder.

    PATH is an OCI layout or archive, a docker archive as 'docker save', kaniko, ko, crane and jib
    write it, or a root file system: a tar archive or a folder. Archives may be compressed by gzip,
    bzip2, xz or zstd. '-' is an archive on standard input.

    \b
    docker save app | vc image import - app
    vc image import rootfs.tar.zst debian --cmd bash

    A root file system has no configuration: the options give it one.
    """
    from vc_core.images.archives import ArchiveFormat
    from vc_core.images.platforms import Platform
    from vc_core.images.sources import of_path

    kind = ArchiveFormat(format_name) if format_name else None
    _take(
        settings,
        of_path(path, tag, _config(options), kind, Platform.parse(platform)),
        name,
        as_json,
    )


@image.group()
def build() -> None:
    """Make an image from the distribution's packages, where there is no registry.

    What a Dockerfile says is for docker or buildah to build; 'vc image import' takes what they
    save.
    """


@build.command()
@_name_option
@json_option
@click.pass_obj
def busybox(settings: Settings, name: str, as_json: bool) -> None:
    """The host's static busybox: a shell and the usual tools in two megabytes."""
    from vc_core.images import builtin

    _take(settings, builtin.busybox(), name or "busybox", as_json)


@build.command()
@click.option("--suite", default="", help="As in bookworm; the host's own by default.")
@click.option(
    "--mirror", default="", metavar="URL", help="The one that apt is set up with by default."
)
@click.option("--include", multiple=True, metavar="PACKAGE", help="One more package.")
@_name_option
@json_option
@click.pass_obj
def debian(
    settings: Settings, suite: str, mirror: str, include: tuple[str, ...], name: str, as_json: bool
) -> None:
    """A minimal Debian, by debootstrap."""
    from vc_core.images import builtin

    _take(
        settings,
        builtin.debian(suite, mirror, include),
        name or f"debian:{suite or 'latest'}",
        as_json,
    )


@image.command("ls")
@json_option
@click.pass_obj
def ls(settings: Settings, as_json: bool) -> None:
    """List images."""

    async def work() -> tuple[Image, ...]:
        async with settings.runtime() as runtime:
            return await runtime.images.list()

    found = run_async(work())
    if as_json:
        echo_json(found)
        return
    rows = (
        (name, one.id[:12], ago(one.made_ns), size(one.bytes))
        for one in found
        for name in one.names or ("<none>",)
    )
    echo_table(("NAME", "ID", "MADE", "SIZE"), rows)


@image.command()
@_image
@click.pass_obj
def inspect(settings: Settings, image: str) -> None:
    """Print all that is known of an image, as JSON."""

    async def work() -> Image:
        async with settings.runtime() as runtime:
            return await runtime.images.get(image)

    echo_json(run_async(work()))


@image.command()
@_image
@click.argument("name", metavar="NAME[:TAG]")
@click.pass_obj
def tag(settings: Settings, image: str, name: str) -> None:
    """Give an image one more name."""

    async def work() -> None:
        async with settings.runtime() as runtime:
            await runtime.images.tag(image, name)

    run_async(work())


@image.command("rm")
@click.argument(
    "images", metavar="IMAGE...", nargs=-1, required=True, shell_complete=completion.images
)
@click.pass_obj
def rm(settings: Settings, images: tuple[str, ...]) -> None:
    """Take names away, and an image with its last one. One that containers have stays."""

    async def work() -> None:
        async with settings.runtime() as runtime:
            for one in images:
                click.echo(await runtime.remove_image(one))

    run_async(work())


@image.command()
@click.option("--all", "-a", "everything", is_flag=True, help="Also images that have a name.")
@json_option
@click.pass_obj
def prune(settings: Settings, everything: bool, as_json: bool) -> None:
    """Remove images that have no name and no container."""

    async def work() -> tuple[Image, ...]:
        async with settings.runtime() as runtime:
            return await runtime.prune_images(everything)

    gone = run_async(work())
    if as_json:
        echo_json(gone)
        return
    for one in gone:
        click.echo(shown(one.name))
    if sys.stderr.isatty():
        click.echo(f"{size(sum(one.bytes for one in gone))} are free again", err=True)


def _config(options: dict[str, Any]) -> ImageConfig:
    from vc_core.images.image import ImageConfig

    if wrong := [word for word in options["env"] if not word.partition("=")[1]]:
        raise InvalidRequest(f"--env {wrong[0]!r} is not NAME=VALUE")
    if options["stop_signal"]:
        signal_number(options["stop_signal"])
    return ImageConfig(
        tuple(shlex.split(options["entrypoint"] or "")),
        tuple(shlex.split(options["cmd"] or "")),
        options["env"],
        options["user"],
        options["workdir"],
        options["volumes"],
        options["stop_signal"],
        pairs(options["labels"]),
    )


def _take(settings: Settings, source: Source, name: str, as_json: bool) -> None:
    async def work() -> Image:
        async with settings.runtime() as runtime:
            with progress_shown() as progress:
                return await runtime.images.take(source, name, progress)

    found = run_async(work())
    if as_json:
        echo_json(found)
    else:
        click.echo(found.id)


@contextmanager
def progress_shown() -> Iterator[Progress]:
    """Bars on a terminal; a line for each step elsewhere."""
    if not sys.stderr.isatty():
        told: set[str] = set()

        def line(step: str, *_: int, **__: int) -> None:
            if step not in told:
                told.add(step)
                click.echo(shown(step), err=True)

        yield line
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, SpinnerColumn, TextColumn
    from rich.progress import Progress as Bars

    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(),
    )
    with Bars(*columns, console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task("looking", total=None)

        def move(step: str, done: int = 0, total: int = 0) -> None:
            bars.update(task, description=shown(step), completed=done, total=total or None)

        yield move
