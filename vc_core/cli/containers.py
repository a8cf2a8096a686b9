"""vc container and vc wait: manage containers."""

from __future__ import annotations

import shlex
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vc_core.cli.completion import pod_id_argument
from vc_core.cli.container_options import container_options, container_spec, hostname_is_h
from vc_core.cli.container_table import show_containers
from vc_core.cli.escapes import shown
from vc_core.cli.execute import chosen
from vc_core.cli.execute import execute as exec_command
from vc_core.cli.global_options import Settings, run_async
from vc_core.cli.image_pull import image_of
from vc_core.cli.key_values import annotation_changes
from vc_core.cli.limit_options import limit_options, limits
from vc_core.cli.option_groups import GroupedCommand
from vc_core.cli.process_options import command_argument, stop_at_first_argument
from vc_core.cli.render import (
    echo_json,
    echo_pairs,
    echo_table,
    exit_text,
    json_option,
    size,
)
from vc_core.engine.state.ids import fresh
from vc_core.signals import signal_number
from vc_core.spec.errors import InvalidRequest
from vc_core.spec.values import Stdio

if TYPE_CHECKING:
    from vc_core.engine.api.container import Container

_container = click.argument("container_id", metavar="[CONTAINER]", default="")


@click.group()
def container() -> None:
    """Manage the containers of a pod.

    CONTAINER may be omitted if the pod has only one.
    """


container.add_command(exec_command, "exec")


@container.command(cls=GroupedCommand, context_settings={**stop_at_first_argument, **hostname_is_h})
@click.option(
    "--name", default="", metavar="ID", show_default="generated", help="Name of the container."
)
@click.option(
    "--bundle",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Create it from an OCI bundle.",
)
@container_options
@click.option(
    "--image", default="", metavar="IMAGE", show_default="image of the pod", help="Image to use."
)
@json_option
@pod_id_argument("[POD]", default="")
@command_argument
@click.pass_context
def create(
    ctx: click.Context,
    /,
    pod_id: str,
    image: str,
    name: str,
    bundle: Path | None,
    command: tuple[str, ...],
    as_json: bool,
    **options: Any,
) -> None:
    """Create a container in POD and print its id.

    It is started with its pod, or by 'vc container start'.

    With --bundle, POD may be omitted. The annotations of the bundle then name the pod that the
    container joins, or make it a sandbox, for which a new pod is created.
    """
    settings: Settings = ctx.obj
    if bundle is not None:
        given = [
            key
            for key in options
            if ctx.get_parameter_source(key) is click.core.ParameterSource.COMMANDLINE
        ]
        if image:
            raise InvalidRequest("--bundle and --image cannot be combined; remove --image")
        if given or command:
            what = f"--{given[0].replace('_', '-')}" if given else "a command"
            raise InvalidRequest(
                f"--bundle and {what} cannot be combined; edit config.json of the bundle instead"
            )
    elif not pod_id:
        raise InvalidRequest("no pod was given; 'vc pod ls' lists pods")

    async def work() -> None:
        async with settings.runtime() as runtime:
            if bundle is not None:
                from vc_core import oci

                container = await oci.create(runtime, bundle, name, pod_id)
            else:
                pod = await runtime.get(pod_id)
                image_name = image or (
                    "" if options["rootfs"] else (await pod.status(ask_guest=False)).config.image
                )
                pod_image = (
                    await image_of(runtime, image_name, options["pull"]) if image_name else None
                )
                if (
                    options["init"]
                    and not (await pod.status(ask_guest=False)).config.options.is_pid_shared
                ):
                    raise InvalidRequest(
                        "--init needs a pod that was created with 'vc pod create --init'"
                    )
                spec = container_spec(
                    name or fresh(), command, options, Stdio.NULL, runtime.volumes, pod_image
                )
                container = await pod.create_container(spec)
            if as_json:
                echo_json(await container.status())
            else:
                click.echo(container.id)

    run_async(work())


@container.command()
@pod_id_argument()
@_container
@limit_options
@click.pass_obj
def update(settings: Settings, /, pod_id: str, container_id: str, **options: Any) -> None:
    """Change the limits of a container, also while it runs. 0 removes a limit."""
    if all(value is None for value in options.values()):
        raise InvalidRequest("no limit was given; 'vc container update --help' lists the options")

    async def change(container: Container) -> None:
        await container.update(limits(options, (await container.status()).spec.resources))

    _call(settings, pod_id, container_id, change)


@container.command()
@pod_id_argument()
@_container
@click.pass_obj
def start(settings: Settings, pod_id: str, container_id: str) -> None:
    """Start a container of a running pod."""
    _call(settings, pod_id, container_id, lambda container: container.start())


@container.command()
@pod_id_argument()
@_container
@click.option(
    "--grace",
    "grace_s",
    type=click.FloatRange(0),
    default=10,
    show_default=True,
    metavar="SECONDS",
    help="Seconds to wait before SIGKILL.",
)
@click.pass_obj
def stop(settings: Settings, pod_id: str, container_id: str, grace_s: float) -> None:
    """Stop a container: send its stop signal, and SIGKILL after --grace seconds."""
    _call(settings, pod_id, container_id, lambda container: container.stop(grace_s))


@container.command()
@pod_id_argument()
@_container
@click.option("--force", "-f", is_flag=True, help="Delete it even if it is running.")
@click.pass_obj
def delete(settings: Settings, pod_id: str, container_id: str, force: bool) -> None:
    """Delete a container."""
    _call(settings, pod_id, container_id, lambda container: container.delete(force))


@container.command()
@pod_id_argument()
@_container
@click.option(
    "--signal",
    "-s",
    "name",
    default="TERM",
    show_default=True,
    help="Name or number of the signal.",
)
@click.option("--all", "everything", is_flag=True, help="Signal every process, not only the first.")
@click.pass_obj
def kill(settings: Settings, pod_id: str, container_id: str, name: str, everything: bool) -> None:
    """Send a signal to the first process of a container."""
    number = signal_number(name)
    _call(settings, pod_id, container_id, lambda container: container.kill(number, everything))


@container.command()
@pod_id_argument()
@_container
@json_option
@click.pass_obj
def wait(settings: Settings, pod_id: str, container_id: str, as_json: bool) -> None:
    """Wait until a container stops, then print its exit code."""
    exit_status = _call(settings, pod_id, container_id, lambda container: container.wait())
    if as_json:
        echo_json(exit_status)
    else:
        click.echo(exit_status.code)


@container.command("ps")
@pod_id_argument()
@_container
@click.option(
    "--args",
    "words",
    metavar="WORDS",
    help="Run ps in the container with these arguments, e.g. -ef.",
)
@json_option
@click.pass_obj
def processes(
    settings: Settings, pod_id: str, container_id: str, words: str | None, as_json: bool
) -> None:
    """List the processes of a container."""
    if words is not None:
        arguments = shlex.split(words)
        output = _call(settings, pod_id, container_id, lambda container: container.ps(*arguments))
        click.echo(shown(output, keep="\n\t"), nl=False)
        return
    process_list = _call(settings, pod_id, container_id, lambda container: container.processes())
    if as_json:
        echo_json(process_list)
        return
    rows = (
        (
            row.pid,
            row.parent_pid,
            row.uid,
            row.state,
            size(row.resident_bytes),
            f"{row.cpu_ns / 1e9:.1f} s",
            " ".join(row.command),
        )
        for row in process_list
    )
    echo_table(("PID", "PARENT", "UID", "STATE", "MEMORY", "CPU", "COMMAND"), rows)


@container.command()
@pod_id_argument()
@_container
@click.argument("changes", nargs=-1, metavar="[KEY=VALUE|KEY-]...")
@json_option
@click.pass_obj
def annotate(
    settings: Settings, pod_id: str, container_id: str, changes: tuple[str, ...], as_json: bool
) -> None:
    """Set (KEY=VALUE) or remove (KEY-) annotations, and print all."""
    changed = annotation_changes(changes)
    echo_pairs(
        _call(settings, pod_id, container_id, lambda container: container.annotate(changed)),
        as_json,
    )


@container.command()
@pod_id_argument()
@_container
@click.pass_obj
def state(settings: Settings, pod_id: str, container_id: str) -> None:
    """Print the state of a container as JSON of the OCI runtime-spec."""

    async def work() -> None:
        from vc_core import oci

        async with settings.runtime() as runtime:
            pod = await runtime.get(pod_id)
            container_status = await (await chosen(pod, container_id)).status()
            echo_json(oci.state(container_status, (await pod.status(ask_guest=False)).pid))

    run_async(work())


@container.command()
@pod_id_argument()
@_container
@json_option
@click.pass_obj
def status(settings: Settings, pod_id: str, container_id: str, as_json: bool) -> None:
    """Show the current status of a container."""
    container_status = _call(settings, pod_id, container_id, lambda container: container.status())
    if as_json:
        echo_json(container_status)
        return
    code = (
        "" if container_status.exit is None else f", exit code {exit_text(container_status.exit)}"
    )
    click.echo(
        f"container {container_status.id}: {container_status.state.value}{code}: "
        f"{shown(' '.join(container_status.spec.process.args))}"
    )
    if (block := container_status.block) is not None:
        click.echo(
            f"  rootfs: {shown(block.device)}, {block.fstype}, in the guest at {block.address}"
        )
    for key, value in container_status.spec.annotations:
        click.echo(f"  {shown(key)} = {shown(value)}")


@container.command("ls")
@pod_id_argument()
@json_option
@click.pass_obj
def ls(settings: Settings, pod_id: str, as_json: bool) -> None:
    """List the containers of a pod."""

    async def work() -> None:
        async with settings.runtime() as runtime:
            pod_status = await (await runtime.get(pod_id)).status()
        show_containers(
            as_json, [(pod_id, container, pod_status.ports) for container in pod_status.containers]
        )

    run_async(work())


def _call(
    settings: Settings, pod_id: str, container_id: str, call: Callable[[Container], Awaitable[Any]]
) -> Any:
    async def work() -> Any:
        async with settings.runtime() as runtime:
            return await call(await chosen(await runtime.get(pod_id), container_id))

    return run_async(work())
