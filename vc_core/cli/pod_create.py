"""vc pod create."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from vc_core.cli.container_options import hostname_is_h
from vc_core.cli.global_options import Settings, run_async
from vc_core.cli.key_values import pairs
from vc_core.cli.machine_options import memory_option, mib, start_option, vcpus_option
from vc_core.cli.network_options import (
    host_entries,
    name_servers,
    network_options,
    policy,
    port_mappings,
)
from vc_core.cli.option_groups import GroupedCommand
from vc_core.cli.render import echo_json, json_option
from vc_core.cli.units import SIZE
from vc_core.defaults import Start
from vc_core.engine.state.boot_assets import Asset, Assets
from vc_core.spec.values import PodOptions


@click.command(cls=GroupedCommand, context_settings=hostname_is_h)
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
    "--can-quiesce/--no-quiesce",
    default=None,
    show_default="pod.can_quiesce",
    help="Prepare for snapshots and forks.",
)
@network_options
@start_option
@json_option
@click.pass_obj
def create(
    settings: Settings,
    /,
    pod_id: str,
    vcpus: int | None,
    vm_memory: int | None,
    hostname: str,
    annotations: tuple[str, ...],
    share_pid: bool,
    init: bool,
    share_shm: int,
    kernel: str | None,
    initrd: str | None,
    hypervisor: str | None,
    can_quiesce: bool | None,
    network: str,
    ports: tuple[str, ...],
    start: str | None,
    as_json: bool,
    **names: Any,
) -> None:
    """Create a pod and print its name. Its machine starts with 'vc pod start'."""
    options = PodOptions(
        dns=name_servers(names),
        is_pid_shared=share_pid or init,
        shared_shm_bytes=share_shm,
        hosts=host_entries(names["add_hosts"]),
    )
    assets = Assets(*(_asset(text) for text in (kernel, initrd, hypervisor)))

    async def work() -> None:
        async with settings.runtime() as runtime:
            pod = await runtime.create(
                pod_id,
                vcpus=vcpus,
                memory_mib=mib(vm_memory),
                hostname=hostname,
                annotations=pairs(annotations),
                options=options,
                assets=assets,
                start=Start(start) if start else None,
                can_quiesce=can_quiesce,
                network=network,
                ports=port_mappings(ports),
                policy=policy(names),
            )
            if as_json:
                echo_json(await pod.status())
            else:
                click.echo(pod.id)

    run_async(work())


def _asset(text: str | None) -> Asset:
    if text is None:
        return Asset()
    path, _, digest = text.partition("=")
    return Asset(Path(path).absolute(), digest)
