"""The commands of vc pod, except create and ls."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from vc_core.cli.completion import pod_id_argument, pod_ids_argument
from vc_core.cli.escapes import shown
from vc_core.cli.global_options import Settings, run_async
from vc_core.cli.key_values import annotation_changes
from vc_core.cli.network_options import (
    other_network_option,
    port_mappings,
    port_text,
    publish_option,
)
from vc_core.cli.render import (
    ago,
    coloured,
    doing,
    echo_json,
    echo_pairs,
    echo_table,
    echo_warnings,
    exit_text,
    json_option,
    size,
)

if TYPE_CHECKING:
    from vc_core.engine.api.pod_listing import PodStatus


@click.command()
@pod_id_argument()
@click.argument("changes", nargs=-1, metavar="[KEY=VALUE|KEY-]...")
@json_option
@click.pass_obj
def annotate(settings: Settings, pod_id: str, changes: tuple[str, ...], as_json: bool) -> None:
    """Set (KEY=VALUE) or remove (KEY-) annotations, and print all."""
    changed = annotation_changes(changes)

    async def work() -> dict[str, str]:
        async with settings.runtime() as runtime:
            return await (await runtime.get(pod_id)).annotate(changed)

    echo_pairs(run_async(work()), as_json)


@click.command()
@pod_ids_argument()
@click.pass_obj
def start(settings: Settings, pod_ids: tuple[str, ...]) -> None:
    """Start pods and their containers."""
    _each(settings, pod_ids, "start")


@click.command()
@pod_ids_argument()
@click.option(
    "--grace",
    "grace_s",
    type=click.FloatRange(0),
    default=10,
    show_default=True,
    metavar="SECONDS",
    help="Seconds that containers have to stop.",
)
@click.option("--force", "-f", is_flag=True, help="Kill the machine without stopping containers.")
@click.pass_obj
def stop(settings: Settings, pod_ids: tuple[str, ...], grace_s: float, force: bool) -> None:
    """Stop pods and their containers."""
    _each(settings, pod_ids, "stop", grace_s=grace_s, force=force)


@click.command()
@pod_ids_argument()
@click.pass_obj
def pause(settings: Settings, pod_ids: tuple[str, ...]) -> None:
    """Pause pods."""
    _each(settings, pod_ids, "pause")


@click.command()
@pod_ids_argument()
@click.pass_obj
def resume(settings: Settings, pod_ids: tuple[str, ...]) -> None:
    """Resume paused pods."""
    _each(settings, pod_ids, "resume")


@click.command()
@pod_ids_argument()
@click.option("--force", "-f", is_flag=True, help="Kill the machine without stopping containers.")
@click.pass_obj
def delete(settings: Settings, pod_ids: tuple[str, ...], force: bool) -> None:
    """Stop and delete pods."""

    async def work() -> None:
        async with settings.runtime() as runtime:
            for pod_id in pod_ids:
                with doing(f"delete {pod_id}"):
                    await runtime.delete(pod_id, force)

    run_async(work())


@click.command()
@pod_id_argument()
@click.argument("name")
@json_option
@click.pass_obj
def snapshot(settings: Settings, pod_id: str, name: str, as_json: bool) -> None:
    """Save a running pod, including its memory, as snapshot NAME. The pod keeps running."""

    async def work() -> None:
        async with settings.runtime() as runtime:
            with doing(f"saving {pod_id}"):
                saved = await (await runtime.get(pod_id)).snapshot(name)
        if as_json:
            echo_json(saved)
        else:
            click.echo(saved.name)

    run_async(work())


@click.command()
@click.argument("name")
@click.option(
    "--name", "pod_id", default="", metavar="POD", show_default="generated", help="Name of the pod."
)
@other_network_option
@publish_option
@click.pass_obj
def restore(
    settings: Settings, name: str, pod_id: str, network: str, ports: tuple[str, ...]
) -> None:
    """Start a pod from snapshot NAME and print its name."""

    async def work() -> None:
        async with settings.runtime() as runtime:
            with doing(f"restoring {name}"):
                restored = await runtime.restore(name, pod_id, port_mappings(ports), network)
            click.echo(restored.id)

    run_async(work())


@click.command()
@pod_id_argument()
@click.option(
    "-n", "--count", type=click.IntRange(1), default=1, show_default=True, help="Number of pods."
)
@other_network_option
@publish_option
@json_option
@click.pass_obj
def fork(
    settings: Settings,
    pod_id: str,
    count: int,
    network: str,
    ports: tuple[str, ...],
    as_json: bool,
) -> None:
    """Start copies of a running pod, including its memory, and print their names.

    How long the pod stood still is printed to stderr.

    The copies of a pod with a network have networks of their own. They publish the ports that are
    given here, or else those of the pod, each on a free port of the host.
    """

    async def work() -> None:
        async with settings.runtime() as runtime:
            with doing(f"forking {pod_id}"):
                children = await (await runtime.get(pod_id)).fork(
                    count, port_mappings(ports) if ports else None, network
                )
            names = [child.id for child in children]
            for child in children:
                await child.close()
            if as_json:
                stood_still_s, detached_s = children.stood_still_s, children.detached_s
                echo_json({"pods": names, "stood_still_s": stood_still_s, "detached_s": detached_s})
                return
            click.echo("\n".join(names))
            waited = f", files and logs waited {children.detached_s:.2f} s"
            waited = waited if children.detached_s else ""
            click.echo(f"{pod_id} stood still {children.stood_still_s:.2f} s{waited}", err=True)

    run_async(work())


@click.command()
@pod_id_argument()
@json_option
@click.pass_obj
def status(settings: Settings, pod_id: str, as_json: bool) -> None:
    """Show the current status of a pod."""

    async def work() -> None:
        async with settings.runtime() as runtime:
            pod_status = await (await runtime.get(pod_id)).status()
        if as_json:
            echo_json(pod_status)
            return
        drivers = ", ".join(
            f"{choice.family} {choice.name}" for choice in pod_status.config.plugins
        )
        reason = f" ({shown(pod_status.reason)})" if pod_status.reason else ""
        echo_warnings(
            [f"pod {pod_status.id}: {pod_status.unanswered}; showing its last known state"]
            if pod_status.unanswered
            else []
        )
        click.echo(f"pod {pod_status.id}: {coloured(pod_status.state.value)}{reason}")
        click.echo(
            f"  machine: {pod_status.size.vcpus} vCPU, {pod_status.size.memory_mib} MiB, "
            f"process {pod_status.pid or 'none'}"
        )
        click.echo(f"  created: {ago(pod_status.config.created_ns)}, with {drivers}")
        for line in _network(pod_status):
            click.echo(f"  {line}")
        for key, value in pod_status.config.annotations.items():
            click.echo(f"  {shown(key)} = {shown(value)}")
        for container in pod_status.containers:
            code = "" if container.exit is None else f", exit code {exit_text(container.exit)}"
            click.echo(f"  container {container.id}: {coloured(container.state.value)}{code}")

    run_async(work())


@click.command()
@pod_id_argument()
@json_option
@click.pass_obj
def stats(settings: Settings, pod_id: str, as_json: bool) -> None:
    """Show the CPU time and memory that the machine of a pod uses on the host."""

    async def work() -> None:
        async with settings.runtime() as runtime:
            usage = await (await runtime.get(pod_id)).stats()
        if as_json:
            echo_json(usage)
        else:
            echo_table(
                ("POD", "CPU", "MEMORY"),
                [(pod_id, f"{usage.cpu_ns / 1e9:.1f} s", size(usage.resident_bytes))],
            )

    run_async(work())


@click.command()
@pod_id_argument()
@click.pass_obj
def console(settings: Settings, pod_id: str) -> None:
    """Print the last output of the guest's kernel.

    On a terminal, control characters are escaped as in dmesg; pipes and files get the raw bytes.
    """

    async def work() -> None:
        async with settings.runtime() as runtime:
            written = await (await runtime.get(pod_id)).console()
        if sys.stdout.isatty():
            text = written.decode(errors="replace").replace("\r\n", "\n")
            click.echo(shown(text, keep="\n\t"), nl=False)
        else:
            click.echo(written, nl=False)

    run_async(work())


def _network(found: PodStatus) -> Iterator[str]:
    """What the pod can reach, and its ports."""
    wanted = found.config.network
    if wanted is not None:
        yield f"network: {wanted.name or wanted.reach.value}"
        policy = wanted.policy
        yield from (f"allow: {rule}" for rule in policy.allow)
        yield from (f"deny: {rule}" for rule in policy.deny)
        for name, bits in (("rate-in", policy.bits_in), ("rate-out", policy.bits_out)):
            if bits:
                yield f"{name}: {bits} bit/s"
    if not found.is_connected:
        yield "network: it does not work, for a part of it is gone; stop and start the pod"
    for port in found.ports:
        yield f"port: {port_text(port)}"


def _each(settings: Settings, pod_ids: tuple[str, ...], verb: str, **arguments: object) -> None:
    async def work() -> None:
        async with settings.runtime() as runtime:
            for pod_id in pod_ids:
                pod = await runtime.get(pod_id)
                with doing(f"{verb} {pod_id}"):
                    await getattr(pod, verb)(**arguments)

    run_async(work())
