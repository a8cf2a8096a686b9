"""Command-line options of a container, and the specification they make."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click
from msgspec import structs

from vc_core.cli import mounts, restart_options, security_options, storage_options
from vc_core.cli.limit_options import LIMIT_OPTIONS, limits
from vc_core.cli.option_groups import add_options
from vc_core.cli.process_options import DEFAULT_PROCESS, PROCESS_OPTIONS, process_spec
from vc_core.cli.ulimits import ulimit
from vc_core.signals import signal_number
from vc_core.spec.values import ContainerSpec, Resources, Stdio

if TYPE_CHECKING:
    from vc_core.engine.host.volumes import Volumes
    from vc_core.images import Image

F = TypeVar("F", bound=Callable[..., Any])

hostname_is_h = {"help_option_names": ["--help"]}  # -h is --hostname, as in Docker
container_id_option = click.option(
    "--container",
    "-c",
    "container_id",
    default="",
    metavar="ID",
    help="Container to use, if the pod has more than one.",
)

_CONTAINER_OPTIONS = (
    click.option("--hostname", "-h", default="", metavar="NAME", help="Host name."),
    click.option("--init", is_flag=True, help="Run an init process that reaps orphaned processes."),
    click.option(
        "--stop-signal",
        default="",
        metavar="SIGNAL",
        show_default="SIGTERM",
        help="Signal that stops the container.",
    ),
    click.option(
        "--pull",
        type=click.Choice(["always", "missing", "never"]),
        default="never",
        show_default=True,
        help="When to pull IMAGE from its registry.",
    ),
    click.option("--entrypoint", metavar="WORDS", help="Replace the entrypoint of the image."),
    click.option(
        "--security-opt",
        "security_opts",
        multiple=True,
        metavar="OPTION",
        help="no-new-privileges, seccomp=unconfined or systempaths=unconfined.",
    ),
    click.option(
        "--show-secrets",
        is_flag=True,
        help="Show the files of pod.secret_paths if the root is the host's.",
    ),
    click.option(
        "--ulimit",
        "ulimits",
        multiple=True,
        metavar="NAME=SOFT[:HARD]",
        help="Resource limit of a process, e.g. nofile=1024:65536.",
    ),
)


def container_options(function: F) -> F:
    """Decorate a command with the options that `container_spec` reads."""
    return add_options(
        (
            *_CONTAINER_OPTIONS,
            *storage_options.STORAGE_OPTIONS,
            *LIMIT_OPTIONS,
            *restart_options.RESTART_OPTIONS,
            *PROCESS_OPTIONS,
        ),
        function,
    )


def container_spec(
    container_id: str,
    command: Sequence[str],
    options: Mapping[str, Any],
    stdio: Stdio,
    volumes: Volumes,
    image: Image | None = None,
) -> ContainerSpec:
    """Make the specification of a container.

    Args:
        container_id: its name.
        command: argv, or the arguments of the image's entrypoint.
        options: values of the container options, by name.
        stdio: where the streams of its first process go.
        volumes: of this host; a named volume that does not exist is created.
        image: the image it is made from; None takes --rootfs.

    Raises:
        InvalidRequest: an option has an invalid value.
    """
    volume_mounts = [mounts.bind(text, volumes) for text in options["mounts"]]
    default = DEFAULT_PROCESS
    entrypoint = None if options["entrypoint"] is None else shlex.split(options["entrypoint"])
    if image is not None:
        default = image.process(command, entrypoint)
        command = default.args
    elif entrypoint:
        command = (*entrypoint, *command)
    spec = ContainerSpec(
        id=container_id,
        rootfs=structs.replace(
            storage_options.rootfs(options["rootfs"] or "/", options["read_only"]),
            disk_bytes=options["disk"],
            show_secrets=options["show_secrets"],
        ),
        process=structs.replace(
            process_spec(command, options, default),
            rlimits=tuple(ulimit(text) for text in options["ulimits"]),
        ),
        mounts=(*volume_mounts, *(mounts.tmpfs(text) for text in options["tmpfs"])),
        stdio=stdio,
        hostname=options["hostname"],
        devices=tuple(storage_options.device(text) for text in options["devices"]),
        resources=limits(options, Resources()),
        shm_bytes=options["shm_size"],
        restart=restart_options.restart(options),
        health=restart_options.health(options),
    )
    spec = security_options.confined(spec, options["security_opts"])
    if image is not None:
        spec = image.container(spec)
    if not options["stop_signal"]:
        return spec
    return structs.replace(spec, stop_signal=signal_number(options["stop_signal"]))
