"""vc image: manage images."""

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
    "--name", default="", metavar="NAME[:TAG]", help="Name of the image on this host."
)
_platform_option = click.option(
    "--platform",
    default="",
    metavar="OS/ARCHITECTURE",
    help="Accept an image for another platform, e.g. linux/arm64; it cannot run here.",
)

_CONFIG = (
    click.option("--entrypoint", metavar="WORDS", help="Entrypoint of the image."),
    click.option("--cmd", metavar="WORDS", help="Default command of the image."),
    click.option(
        "--env", "-e", multiple=True, metavar="NAME=VALUE", help="Set an environment variable."
    ),
    click.option(
        "--user", "-u", default="", metavar="USER[:GROUP]", help="User and group of the command."
    ),
    click.option("--workdir", "-w", default="", metavar="DIR", help="Working directory."),
    click.option(
        "--volume",
        "volumes",
        multiple=True,
        metavar="DIR",
        help="Directory that is writable in a read-only root.",
    ),
    click.option(
        "--stop-signal",
        default="",
        metavar="SIGNAL",
        show_default="SIGTERM",
        help="Signal that stops a container.",
    ),
    click.option(
        "--label",
        "labels",
        multiple=True,
        metavar="KEY=VALUE",
        help="Label; containers get it as an annotation.",
    ),
)


def _config_options(function: F) -> F:
    for option in reversed(_CONFIG):
        function = option(function)
    return function


@click.group()
def image() -> None:
    """Manage images.

    An image is one read-only file that all its containers share.
    """


@image.command()
@click.argument("reference", metavar="REFERENCE")
@_name_option
@click.option("--insecure", is_flag=True, help="Accept plain HTTP and invalid certificates.")
@_platform_option
@json_option
@click.pass_obj
def pull(
    settings: Settings, reference: str, name: str, insecure: bool, platform: str, as_json: bool
) -> None:
    """Pull an image from a registry, or from another source of skopeo.

    Credentials are those that 'skopeo login' has stored.

    \b
    vc image pull debian:12
    vc image pull registry.example/team/app:1.0
    vc image pull containers-storage://localhost/app
    """
    from vc_core.images.platforms import Platform
    from vc_core.images.sources import of_reference

    image_name = name or reference.rpartition("//")[2].partition("@")[0]
    _add(settings, of_reference(reference, insecure, Platform.parse(platform)), image_name, as_json)


@image.command("import")
@click.argument("path", metavar="PATH|-", type=click.Path(path_type=Path))
@click.argument("name", metavar="NAME[:TAG]")
@click.option("--tag", default="", help="Image to import from a layout or archive of several.")
@click.option(
    "--format",
    "format_name",
    type=click.Choice(["rootfs", "docker-archive", "oci-archive"]),
    show_default="detected",
    help="Format of the archive.",
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
    """Import an image from a file or directory.

    PATH is an OCI layout or archive, a Docker archive (of docker save, kaniko, ko, crane or jib),
    or a root file system (a tar archive or a directory). Archives may be compressed with gzip,
    bzip2, xz or zstd. '-' reads an archive from standard input.

    \b
    docker save app | vc image import - app
    vc image import rootfs.tar.zst debian --cmd bash

    A root file system has no configuration; use the options to set it.
    """
    from vc_core.images.archives import ArchiveFormat
    from vc_core.images.platforms import Platform
    from vc_core.images.sources import of_path

    kind = ArchiveFormat(format_name) if format_name else None
    _add(
        settings,
        of_path(path, tag, _config(options), kind, Platform.parse(platform)),
        name,
        as_json,
    )


@image.group()
def build() -> None:
    """Build an image from packages of the distribution, without a registry.

    Dockerfiles are not supported; build them with docker or buildah and use 'vc image import'.
    """


@build.command()
@_name_option
@json_option
@click.pass_obj
def busybox(settings: Settings, name: str, as_json: bool) -> None:
    """Build an image of the host's static busybox."""
    from vc_core.images import builtin

    _add(settings, builtin.busybox(), name or "busybox", as_json)


@build.command()
@click.option("--suite", default="", show_default="suite of the host", help="Suite, e.g. bookworm.")
@click.option(
    "--mirror", default="", metavar="URL", show_default="mirror of the host's apt", help="Mirror."
)
@click.option("--include", multiple=True, metavar="PACKAGE", help="Include a package.")
@_name_option
@json_option
@click.pass_obj
def debian(
    settings: Settings, suite: str, mirror: str, include: tuple[str, ...], name: str, as_json: bool
) -> None:
    """Build an image of a minimal Debian with debootstrap."""
    from vc_core.images import builtin

    _add(
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

    images = run_async(work())
    if as_json:
        echo_json(images)
        return
    rows = (
        (name, image.id[:12], ago(image.made_ns), size(image.bytes))
        for image in images
        for name in image.names or ("<none>",)
    )
    echo_table(("NAME", "ID", "MADE", "SIZE"), rows)


@image.command()
@_image
@click.pass_obj
def inspect(settings: Settings, image: str) -> None:
    """Print details of an image as JSON."""

    async def work() -> Image:
        async with settings.runtime() as runtime:
            return await runtime.images.get(image)

    echo_json(run_async(work()))


@image.command()
@_image
@click.argument("name", metavar="NAME[:TAG]")
@click.pass_obj
def tag(settings: Settings, image: str, name: str) -> None:
    """Add a name to an image."""

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
    """Remove names of images, and images that have no name left.

    Images in use by a container are kept.
    """

    async def work() -> None:
        async with settings.runtime() as runtime:
            for name in images:
                click.echo(await runtime.remove_image(name))

    run_async(work())


@image.command()
@click.option(
    "--all",
    "-a",
    "everything",
    is_flag=True,
    help="Remove all unused images, not only unnamed ones.",
)
@json_option
@click.pass_obj
def prune(settings: Settings, everything: bool, as_json: bool) -> None:
    """Remove images that have no name and are not in use."""

    async def work() -> tuple[Image, ...]:
        async with settings.runtime() as runtime:
            return await runtime.prune_images(everything)

    removed = run_async(work())
    if as_json:
        echo_json(removed)
        return
    for image in removed:
        click.echo(shown(image.name))
    if sys.stderr.isatty():
        click.echo(f"{size(sum(image.bytes for image in removed))} freed", err=True)


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


def _add(settings: Settings, source: Source, name: str, as_json: bool) -> None:
    async def work() -> Image:
        async with settings.runtime() as runtime:
            with progress_shown() as progress:
                return await runtime.images.take(source, name, progress)

    image = run_async(work())
    if as_json:
        echo_json(image)
    else:
        click.echo(image.id)


@contextmanager
def progress_shown() -> Iterator[Progress]:
    """Show progress bars on a terminal, one line per step elsewhere."""
    if not sys.stderr.isatty():
        steps_shown: set[str] = set()

        def line(step: str, *_: int, **__: int) -> None:
            if step not in steps_shown:
                steps_shown.add(step)
                click.echo(shown(step), err=True)

        yield line
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, SpinnerColumn, TextColumn
    from rich.progress import Progress as ProgressBars

    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(),
    )
    with ProgressBars(*columns, console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task("starting", total=None)

        def move(step: str, done: int = 0, total: int = 0) -> None:
            bars.update(task, description=shown(step), completed=done, total=total or None)

        yield move
