"""vc pod: the life of pods."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from vc_core.cli.render import ago, coloured, doing, echo_json, echo_table, json_option, size
from vc_core.cli.settings import Settings, run_async

if TYPE_CHECKING:
    from vc_core.engine.pod import PodStatus

_pods = click.argument("pod_ids", metavar="POD...", nargs=-1, required=True)
_pod = click.argument("pod_id", metavar="POD")


@click.group()
def pod() -> None:
    """Make, start, stop and delete pods: virtual machines with containers in them."""


@pod.command()
@click.argument("pod_id", metavar="[POD]", default="")
@click.option("--vcpus", type=click.IntRange(1), help="Processors of the machine.")
@click.option("--memory", "memory_mib", type=click.IntRange(64), metavar="MIB", help="Memory of the machine.")
@click.option("--hostname", default="", help="The pod's name by default.")
@click.option("--annotation", "annotations", multiple=True, metavar="KEY=VALUE", help="Kept and given back.")
@json_option
@click.pass_obj
def create(
    settings: Settings,
    pod_id: str,
    vcpus: int | None,
    memory_mib: int | None,
    hostname: str,
    annotations: tuple[str, ...],
    as_json: bool,
) -> None:
    """Make a pod and print its name. Its machine boots when it is started."""
    pairs = {key: value for key, _, value in (text.partition("=") for text in annotations)}

    async def work() -> None:
        async with settings.runtime() as runtime:
            made = await runtime.create(
                pod_id, vcpus=vcpus, memory_mib=memory_mib, hostname=hostname, annotations=pairs
            )
            if as_json:
                echo_json(await made.status())
            else:
                click.echo(made.id)

    run_async(work())


@pod.command()
@_pods
@click.pass_obj
def start(settings: Settings, pod_ids: tuple[str, ...]) -> None:
    """Boot pods and start their containers."""
    _each(settings, pod_ids, "start")


@pod.command()
@_pods
@click.option("--grace", "grace_s", type=click.FloatRange(0), default=10, show_default=True, metavar="SECONDS")
@click.option("--force", is_flag=True, help="Ask nobody: end the machine at once.")
@click.pass_obj
def stop(settings: Settings, pod_ids: tuple[str, ...], grace_s: float, force: bool) -> None:
    """Stop pods; containers have --grace seconds to end by themselves."""
    _each(settings, pod_ids, "stop", grace_s=grace_s, force=force)


@pod.command()
@_pods
@click.pass_obj
def pause(settings: Settings, pod_ids: tuple[str, ...]) -> None:
    """Freeze pods."""
    _each(settings, pod_ids, "pause")


@pod.command()
@_pods
@click.pass_obj
def resume(settings: Settings, pod_ids: tuple[str, ...]) -> None:
    """Let frozen pods run."""
    _each(settings, pod_ids, "resume")


@pod.command()
@_pods
@click.option("--force", is_flag=True, help="Ask nobody in the guest: end the machine at once.")
@click.pass_obj
def delete(settings: Settings, pod_ids: tuple[str, ...], force: bool) -> None:
    """Stop pods if they run, and remove them."""
    _each(settings, pod_ids, "delete", force=force)


@pod.command("ls")
@json_option
@click.pass_obj
def ls(settings: Settings, as_json: bool) -> None:
    """List pods."""

    async def work() -> None:
        async with settings.runtime() as runtime:
            listing = await runtime.list()
        if as_json:
            echo_json(listing.pods)
        else:
            rows = [_row(found) for found in listing.pods]
            echo_table(("POD", "STATE", "CONTAINERS", "VCPUS", "MEMORY", "CREATED", "REASON"), rows)
        for problem in listing.problems:
            click.echo(f"{click.style('vc: warning:', fg='yellow')} {problem}", err=True)

    run_async(work())


@pod.command()
@_pod
@json_option
@click.pass_obj
def status(settings: Settings, pod_id: str, as_json: bool) -> None:
    """Tell what is true of a pod now."""

    async def work() -> None:
        async with settings.runtime() as runtime:
            found = await (await runtime.get(pod_id)).status()
        if as_json:
            echo_json(found)
            return
        drivers = ", ".join(f"{choice.family} {choice.name}" for choice in found.config.plugins)
        reason = f" ({found.reason})" if found.reason else ""
        click.echo(f"pod {found.id}: {coloured(found.state.value)}{reason}")
        click.echo(
            f"  machine: {found.config.vcpus} vCPU, {found.config.memory_mib} MiB, process {found.pid or 'none'}"
        )
        click.echo(f"  made: {ago(found.config.created_ns)}, with {drivers}")
        for key, value in found.config.annotations.items():
            click.echo(f"  {key} = {value}")
        for container in found.containers:
            code = "" if container.exit is None else f", exit code {container.exit.code}"
            click.echo(f"  container {container.id}: {coloured(container.state.value)}{code}")

    run_async(work())


@pod.command()
@_pod
@json_option
@click.pass_obj
def stats(settings: Settings, pod_id: str, as_json: bool) -> None:
    """Tell what a pod's machine uses of this host."""

    async def work() -> None:
        async with settings.runtime() as runtime:
            found = await (await runtime.get(pod_id)).stats()
        if as_json:
            echo_json(found)
        else:
            echo_table(("POD", "CPU", "MEMORY"), [(pod_id, f"{found.cpu_ns / 1e9:.1f} s", size(found.resident_bytes))])

    run_async(work())


@pod.command()
@_pod
@click.pass_obj
def console(settings: Settings, pod_id: str) -> None:
    """Print the last of what the guest's kernel wrote."""

    async def work() -> None:
        async with settings.runtime() as runtime:
            click.echo(await (await runtime.get(pod_id)).console(), nl=False)

    run_async(work())


def _row(found: PodStatus) -> tuple[object, ...]:
    config = found.config
    memory = f"{config.memory_mib} MiB"
    made = ago(config.created_ns)
    return (found.id, found.state.value, len(found.containers), config.vcpus, memory, made, found.reason)


def _each(settings: Settings, pod_ids: tuple[str, ...], verb: str, **arguments: object) -> None:
    async def work() -> None:
        async with settings.runtime() as runtime:
            for pod_id in pod_ids:
                pod = await runtime.get(pod_id)
                with doing(f"{verb} {pod_id}"):
                    await getattr(pod, verb)(**arguments)

    run_async(work())
