"""vc pod: the life of pods."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from vc_core.cli.completion import pod_id_argument, pod_ids_argument
from vc_core.cli.container_options import hostname_is_h
from vc_core.cli.escapes import shown
from vc_core.cli.global_options import Settings, run_async
from vc_core.cli.key_values import annotation_changes, pairs
from vc_core.cli.machine_options import memory_option, mib, start_option, vcpus_option
from vc_core.cli.option_groups import GroupedCommand
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
from vc_core.cli.units import SIZE
from vc_core.defaults import Start
from vc_core.engine.state.boot_assets import Asset, Assets
from vc_core.spec.values import Dns, PodOptions

if TYPE_CHECKING:
    from vc_core.engine.api.pod_views import PodStatus


@click.group()
def pod() -> None:
    """Make, start, stop and delete pods: virtual machines with containers in them."""


@pod.command(cls=GroupedCommand, context_settings=hostname_is_h)
@click.argument("pod_id", metavar="[POD]", default="")
@vcpus_option
@memory_option("--memory", "-m")
@click.option(
    "--hostname",
    "-h",
    default="",
    metavar="NAME",
    show_default="name of the pod",
    help="Host name.",
)
@click.option(
    "--annotation", "annotations", multiple=True, metavar="KEY=VALUE", help="Add an annotation."
)
@click.option("--dns", multiple=True, metavar="ADDRESS", help="Add a DNS server.")
@click.option("--dns-search", multiple=True, metavar="DOMAIN", help="Add a DNS search domain.")
@click.option(
    "--dns-option", multiple=True, metavar="OPTION", help="Add an option of resolv.conf(5)."
)
@click.option("--share-pid", is_flag=True, help="Share one PID namespace between containers.")
@click.option(
    "--init", is_flag=True, help="Share PIDs and run an init that reaps orphaned processes."
)
@click.option(
    "--share-shm",
    type=SIZE,
    default=0,
    metavar="SIZE",
    help="Share one /dev/shm of this size between containers.",
)
@click.option("--kernel", metavar="FILE[=SHA512]", help="Boot this kernel.")
@click.option(
    "--image", "initrd", metavar="FILE[=SHA512]", help="Boot this initrd, which holds the agent."
)
@click.option("--hypervisor", metavar="FILE[=SHA512]", help="Run this hypervisor program.")
@click.option(
    "--can-freeze/--no-freeze",
    default=None,
    show_default="pod.can_freeze",
    help="Prepare for snapshots and forks.",
)
@start_option
@json_option
@click.pass_obj
def create(
    settings: Settings,
    pod_id: str,
    vcpus: int | None,
    vm_memory: int | None,
    hostname: str,
    annotations: tuple[str, ...],
    dns: tuple[str, ...],
    dns_search: tuple[str, ...],
    dns_option: tuple[str, ...],
    share_pid: bool,
    init: bool,
    share_shm: int,
    kernel: str | None,
    initrd: str | None,
    hypervisor: str | None,
    can_freeze: bool | None,
    start: str | None,
    as_json: bool,
) -> None:
    """Make a pod and print its name. Its machine boots when it is started."""
    options = PodOptions(Dns(dns, dns_search, dns_option), share_pid or init, share_shm)
    assets = Assets(*(_asset(text) for text in (kernel, initrd, hypervisor)))

    async def work() -> None:
        async with settings.runtime() as runtime:
            made = await runtime.create(
                pod_id,
                vcpus=vcpus,
                memory_mib=mib(vm_memory),
                hostname=hostname,
                annotations=pairs(annotations),
                options=options,
                assets=assets,
                start=Start(start) if start else None,
                can_freeze=can_freeze,
            )
            if as_json:
                echo_json(await made.status())
            else:
                click.echo(made.id)

    run_async(work())


def _asset(text: str | None) -> Asset:
    if text is None:
        return Asset()
    path, _, digest = text.partition("=")
    return Asset(Path(path).absolute(), digest)


@pod.command()
@pod_id_argument()
@click.argument("changes", nargs=-1, metavar="[KEY=VALUE|KEY-]...")
@json_option
@click.pass_obj
def annotate(settings: Settings, pod_id: str, changes: tuple[str, ...], as_json: bool) -> None:
    """Set annotations (KEY=VALUE), remove some (KEY-), print all."""
    wanted = annotation_changes(changes)

    async def work() -> dict[str, str]:
        async with settings.runtime() as runtime:
            return await (await runtime.get(pod_id)).annotate(wanted)

    echo_pairs(run_async(work()), as_json)


@pod.command()
@pod_ids_argument()
@click.pass_obj
def start(settings: Settings, pod_ids: tuple[str, ...]) -> None:
    """Boot pods and start their containers."""
    _each(settings, pod_ids, "start")


@pod.command()
@pod_ids_argument()
@click.option(
    "--grace", "grace_s", type=click.FloatRange(0), default=10, show_default=True, metavar="SECONDS"
)
@click.option("--force", "-f", is_flag=True, help="Ask nobody: end the machine at once.")
@click.pass_obj
def stop(settings: Settings, pod_ids: tuple[str, ...], grace_s: float, force: bool) -> None:
    """Stop pods; containers have --grace seconds to end by themselves."""
    _each(settings, pod_ids, "stop", grace_s=grace_s, force=force)


@pod.command()
@pod_ids_argument()
@click.pass_obj
def pause(settings: Settings, pod_ids: tuple[str, ...]) -> None:
    """Freeze pods."""
    _each(settings, pod_ids, "pause")


@pod.command()
@pod_ids_argument()
@click.pass_obj
def resume(settings: Settings, pod_ids: tuple[str, ...]) -> None:
    """Let frozen pods run."""
    _each(settings, pod_ids, "resume")


@pod.command()
@pod_ids_argument()
@click.option(
    "--force", "-f", is_flag=True, help="Ask nobody in the guest: end the machine at once."
)
@click.pass_obj
def delete(settings: Settings, pod_ids: tuple[str, ...], force: bool) -> None:
    """Stop pods if they run, and remove them."""

    async def work() -> None:
        async with settings.runtime() as runtime:
            for pod_id in pod_ids:
                with doing(f"delete {pod_id}"):
                    await runtime.delete(pod_id, force)

    run_async(work())


@pod.command()
@pod_id_argument()
@click.argument("name")
@json_option
@click.pass_obj
def snapshot(settings: Settings, pod_id: str, name: str, as_json: bool) -> None:
    """Save a running pod with its memory as NAME; it goes on."""

    async def work() -> None:
        async with settings.runtime() as runtime:
            with doing(f"saving {pod_id}"):
                made = await (await runtime.get(pod_id)).snapshot(name)
        if as_json:
            echo_json(made)
        else:
            click.echo(made.name)

    run_async(work())


@pod.command()
@click.argument("name")
@click.option("--name", "pod_id", default="", help="Of the pod; made up by default.")
@click.pass_obj
def restore(settings: Settings, name: str, pod_id: str) -> None:
    """Start a pod where the snapshot NAME was taken, and print its name."""

    async def work() -> None:
        async with settings.runtime() as runtime:
            with doing(f"restoring {name}"):
                made = await runtime.restore(name, pod_id)
            click.echo(made.id)

    run_async(work())


@pod.command()
@pod_id_argument()
@click.option(
    "-n", "--count", type=click.IntRange(1), default=1, show_default=True, help="How many."
)
@click.pass_obj
def fork(settings: Settings, pod_id: str, count: int) -> None:
    """Start pods that go on from where a running one is now, and print their names."""

    async def work() -> None:
        async with settings.runtime() as runtime:
            with doing(f"forking {pod_id}"):
                made = await (await runtime.get(pod_id)).fork(count)
            for one in made:
                click.echo(one.id)
                await one.close()

    run_async(work())


@pod.command("ls")
@json_option
@click.pass_obj
def ls(settings: Settings, as_json: bool) -> None:
    """List pods."""

    async def work() -> None:
        async with settings.runtime() as runtime:
            listing = await runtime.list()
        if as_json:
            echo_json((*listing.pods, *listing.damaged))
        else:
            rows = [_row(found) for found in listing.pods]
            rows += [
                (found.id, found.state, "", "", "", "", found.reason) for found in listing.damaged
            ]
            echo_table(
                ("POD", "STATE", "CONTAINERS", "VCPUS", "MEMORY", "CREATED", "REASON"),
                sorted(rows, key=str),
            )
        echo_warnings(listing.problems)

    run_async(work())


@pod.command()
@pod_id_argument()
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
        reason = f" ({shown(found.reason)})" if found.reason else ""
        echo_warnings(
            [f"pod {found.id}: {found.unanswered}; shown as last known"] if found.unanswered else []
        )
        click.echo(f"pod {found.id}: {coloured(found.state.value)}{reason}")
        click.echo(
            f"  machine: {found.size.vcpus} vCPU, {found.size.memory_mib} MiB, process {found.pid or 'none'}"
        )
        click.echo(f"  made: {ago(found.config.created_ns)}, with {drivers}")
        for key, value in found.config.annotations.items():
            click.echo(f"  {shown(key)} = {shown(value)}")
        for container in found.containers:
            code = "" if container.exit is None else f", exit code {exit_text(container.exit)}"
            click.echo(f"  container {container.id}: {coloured(container.state.value)}{code}")

    run_async(work())


@pod.command()
@pod_id_argument()
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
            echo_table(
                ("POD", "CPU", "MEMORY"),
                [(pod_id, f"{found.cpu_ns / 1e9:.1f} s", size(found.resident_bytes))],
            )

    run_async(work())


@pod.command()
@pod_id_argument()
@click.pass_obj
def console(settings: Settings, pod_id: str) -> None:
    """Print the last of what the guest's kernel wrote.

    On a terminal, control characters are escaped, as dmesg does it; a pipe or file gets what was
    written.
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


def _row(found: PodStatus) -> tuple[object, ...]:
    config = found.config
    memory = f"{found.size.memory_mib} MiB"
    made = ago(config.created_ns)
    reason = found.unanswered or found.reason
    return (
        found.id,
        found.state.value,
        len(found.containers),
        found.size.vcpus,
        memory,
        made,
        reason,
    )


def _each(settings: Settings, pod_ids: tuple[str, ...], verb: str, **arguments: object) -> None:
    async def work() -> None:
        async with settings.runtime() as runtime:
            for pod_id in pod_ids:
                pod = await runtime.get(pod_id)
                with doing(f"{verb} {pod_id}"):
                    await getattr(pod, verb)(**arguments)

    run_async(work())
