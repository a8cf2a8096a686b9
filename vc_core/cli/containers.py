"""vc container and vc ps: the life of containers."""

from __future__ import annotations

import shlex
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vc_core.cli.completion import pod_id_argument
from vc_core.cli.container_options import container_options, container_spec, hostname_is_h
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
    ago,
    echo_json,
    echo_pairs,
    echo_table,
    echo_warnings,
    exit_text,
    json_option,
    size,
)
from vc_core.engine.state.ids import fresh
from vc_core.engine.state.states import State
from vc_core.images.image import NAME_NOTE
from vc_core.signals import signal_number
from vc_core.spec.errors import InvalidRequest
from vc_core.spec.values import Stdio

if TYPE_CHECKING:
    from vc_core.engine.api.container import Container
    from vc_core.engine.api.container_status import ContainerStatus

_container = click.argument("container_id", metavar="[CONTAINER]", default="")


@click.group()
def container() -> None:
    """Make, start, stop and delete containers of a pod.

    CONTAINER may be left out when the pod has one.
    """


container.add_command(exec_command, "exec")


@container.command(cls=GroupedCommand, context_settings={**stop_at_first_argument, **hostname_is_h})
@click.option("--name", default="", metavar="ID", help="Made up by default.")
@click.option(
    "--bundle",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="An OCI bundle, instead of all the rest.",
)
@container_options
@click.option(
    "--image", default="", metavar="IMAGE", help="What it is made from; that of the pod by default."
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
    """Make a container in POD and print its id; it runs when it, or its pod, is started.

    With --bundle, POD may be left out: the bundle's annotations then say which pod the container
    joins, or that it is a sandbox, which makes a pod of its own.
    """
    settings: Settings = ctx.obj
    if bundle is not None:
        given = [
            key
            for key in options
            if ctx.get_parameter_source(key) is click.core.ParameterSource.COMMANDLINE
        ]
        if image:
            raise InvalidRequest("--bundle says all about a container; leave --image away")
        if given or command:
            what = f"--{given[0].replace('_', '-')}" if given else "a command"
            raise InvalidRequest(
                f"--bundle says all about a container; leave {what} away, or change its config.json"
            )
    elif not pod_id:
        raise InvalidRequest("no pod was given; 'vc pod ls' shows those that exist")

    async def work() -> None:
        async with settings.runtime() as runtime:
            if bundle is not None:
                from vc_core import oci

                made = await oci.create(runtime, bundle, name, pod_id)
            else:
                pod = await runtime.get(pod_id)
                wanted = image or (
                    "" if options["rootfs"] else (await pod.status(ask_guest=False)).config.image
                )
                found = await image_of(runtime, wanted, options["pull"]) if wanted else None
                if (
                    options["init"]
                    and not (await pod.status(ask_guest=False)).config.options.is_pid_shared
                ):
                    raise InvalidRequest(
                        "--init needs a pod that was made with it: 'vc pod create --init'"
                    )
                spec = container_spec(
                    name or fresh(), command, options, Stdio.NULL, runtime.volumes, found
                )
                made = await pod.create_container(spec)
            if as_json:
                echo_json(await made.status())
            else:
                click.echo(made.id)

    run_async(work())


@container.command()
@pod_id_argument()
@_container
@limit_options
@click.pass_obj
def update(settings: Settings, /, pod_id: str, container_id: str, **options: Any) -> None:
    """Change the limits of a container, at once when it runs; 0 takes a limit away."""
    if all(value is None for value in options.values()):
        raise InvalidRequest("no limit was given; 'vc container update --help' shows them")

    async def change(found: Container) -> None:
        await found.update(limits(options, (await found.status()).spec.resources))

    _call(settings, pod_id, container_id, change)


@container.command()
@pod_id_argument()
@_container
@click.pass_obj
def start(settings: Settings, pod_id: str, container_id: str) -> None:
    """Start a container of a running pod."""
    _call(settings, pod_id, container_id, lambda found: found.start())


@container.command()
@pod_id_argument()
@_container
@click.option(
    "--grace", "grace_s", type=click.FloatRange(0), default=10, show_default=True, metavar="SECONDS"
)
@click.pass_obj
def stop(settings: Settings, pod_id: str, container_id: str, grace_s: float) -> None:
    """Stop a container; its first process has --grace seconds to end by itself."""
    _call(settings, pod_id, container_id, lambda found: found.stop(grace_s))


@container.command()
@pod_id_argument()
@_container
@click.option("--force", "-f", is_flag=True, help="Also when it runs.")
@click.pass_obj
def delete(settings: Settings, pod_id: str, container_id: str, force: bool) -> None:
    """Remove a container."""
    _call(settings, pod_id, container_id, lambda found: found.delete(force))


@container.command()
@pod_id_argument()
@_container
@click.option(
    "--signal", "-s", "name", default="TERM", show_default=True, help="A name or a number."
)
@click.option("--all", "everything", is_flag=True, help="Every process, not only the first.")
@click.pass_obj
def kill(settings: Settings, pod_id: str, container_id: str, name: str, everything: bool) -> None:
    """Send a signal to a container."""
    number = signal_number(name)
    _call(settings, pod_id, container_id, lambda found: found.kill(number, everything))


@container.command()
@pod_id_argument()
@_container
@json_option
@click.pass_obj
def wait(settings: Settings, pod_id: str, container_id: str, as_json: bool) -> None:
    """Wait until a container's first process has ended; print its exit code."""
    found = _call(settings, pod_id, container_id, lambda found: found.wait())
    if as_json:
        echo_json(found)
    else:
        click.echo(found.code)


@container.command("ps")
@pod_id_argument()
@_container
@click.option(
    "--args",
    "words",
    metavar="WORDS",
    help="Print what the container's own ps prints for these, as in -ef.",
)
@json_option
@click.pass_obj
def processes(
    settings: Settings, pod_id: str, container_id: str, words: str | None, as_json: bool
) -> None:
    """List the processes of a container."""
    if words is not None:
        arguments = shlex.split(words)
        told = _call(settings, pod_id, container_id, lambda found: found.ps(*arguments))
        click.echo(shown(told, keep="\n\t"), nl=False)
        return
    found = _call(settings, pod_id, container_id, lambda found: found.processes())
    if as_json:
        echo_json(found)
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
        for row in found
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
    """Set annotations (KEY=VALUE), remove some (KEY-), print all."""
    wanted = annotation_changes(changes)
    echo_pairs(_call(settings, pod_id, container_id, lambda found: found.annotate(wanted)), as_json)


@container.command()
@pod_id_argument()
@_container
@click.pass_obj
def state(settings: Settings, pod_id: str, container_id: str) -> None:
    """Print a container's state as the OCI runtime-spec has it."""

    async def work() -> None:
        from vc_core import oci

        async with settings.runtime() as runtime:
            pod = await runtime.get(pod_id)
            found = await (await chosen(pod, container_id)).status()
            echo_json(oci.state(found, (await pod.status(ask_guest=False)).pid))

    run_async(work())


@container.command()
@pod_id_argument()
@_container
@json_option
@click.pass_obj
def status(settings: Settings, pod_id: str, container_id: str, as_json: bool) -> None:
    """Tell what is true of a container now."""
    found = _call(settings, pod_id, container_id, lambda found: found.status())
    if as_json:
        echo_json(found)
        return
    code = "" if found.exit is None else f", exit code {exit_text(found.exit)}"
    click.echo(
        f"container {found.id}: {found.state.value}{code}: {shown(' '.join(found.spec.process.args))}"
    )
    if found.block is not None:
        click.echo(
            f"  rootfs: {shown(found.block.device)}, {found.block.fstype}, in the guest at {found.block.address}"
        )
    for key, value in found.spec.annotations:
        click.echo(f"  {shown(key)} = {shown(value)}")


@container.command("ls")
@pod_id_argument()
@json_option
@click.pass_obj
def ls(settings: Settings, pod_id: str, as_json: bool) -> None:
    """List the containers of a pod."""

    async def work() -> None:
        async with settings.runtime() as runtime:
            found = await (await runtime.get(pod_id)).status()
        _show(as_json, [(pod_id, one) for one in found.containers])

    run_async(work())


@click.command()
@click.option(
    "-a", "--all", is_flag=True, expose_value=False, help="For ps -a: all are listed in any case."
)
@json_option
@click.pass_obj
def ps(settings: Settings, as_json: bool) -> None:
    """List containers of all pods."""

    async def work() -> None:
        async with settings.runtime() as runtime:
            listing = await runtime.list(ask_guests=True)
        _show(as_json, [(found.id, one) for found in listing.pods for one in found.containers])
        echo_warnings(f"pod {found.id} is damaged: {found.reason}" for found in listing.damaged)
        silent = [found for found in listing.pods if found.unanswered]
        echo_warnings(
            f"pod {found.id}: {found.unanswered}; shown as last known" for found in silent
        )
        echo_warnings(listing.problems)

    run_async(work())


def _show(as_json: bool, found: list[tuple[str, Any]]) -> None:
    if as_json:
        echo_json([{"pod": pod_id, "container": one} for pod_id, one in found])
        return
    rows = (
        (
            pod_id,
            one.id,
            dict(one.spec.annotations).get(NAME_NOTE, ""),
            state_text(one),
            one.restarts or "",
            one.health.value,
            " ".join(one.spec.process.args),
        )
        for pod_id, one in found
    )
    echo_table(("POD", "CONTAINER", "IMAGE", "STATE", "RESTARTS", "HEALTH", "COMMAND"), rows)


def state_text(found: ContainerStatus) -> str:
    """The state for people: `running for 5 min`, `exited (3) 2 min ago`."""
    if found.unanswered:
        return f"{found.state.value} (no answer)"
    if found.exit is not None:
        when = (
            found.exit.ended_ns
        )  # which the guest says: not before its start, and not in the future
        return f"exited ({exit_text(found.exit)})" + (
            f" {ago(max(when, found.started_ns))}" if when else ""
        )
    if found.state is State.RUNNING and found.started_ns:
        return f"running for {ago(found.started_ns).removesuffix(' ago')}"
    return found.state.value


def _call(
    settings: Settings, pod_id: str, container_id: str, call: Callable[[Container], Awaitable[Any]]
) -> Any:
    async def work() -> Any:
        async with settings.runtime() as runtime:
            return await call(await chosen(await runtime.get(pod_id), container_id))

    return run_async(work())
