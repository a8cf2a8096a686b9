"""vc run: run a command in a new pod."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import click
from msgspec import Struct

from vc_core.cli.console import Console
from vc_core.cli.container_options import container_options, container_spec, hostname_is_h
from vc_core.cli.global_options import Settings, run_async
from vc_core.cli.image_argument import ImageCommand, image_argument
from vc_core.cli.image_pull import image_of
from vc_core.cli.machine_options import memory_option, mib, start_option, vcpus_option
from vc_core.cli.network_options import (
    host_entries,
    name_servers,
    network_options,
    policy,
    port_mappings,
)
from vc_core.cli.process_options import (
    detach_keys_option,
    stop_at_first_argument,
    timeout_option,
)
from vc_core.cli.render import doing, size
from vc_core.defaults import Start
from vc_core.engine.state.ids import fresh
from vc_core.spec.values import (
    ContainerSpec,
    ExitStatus,
    PodOptions,
    PortMapping,
    RootfsMode,
    Stdio,
)

if TYPE_CHECKING:
    from vc_core.engine.api.pod import Pod

log = logging.getLogger(__name__)


@click.command(
    "run", cls=ImageCommand, context_settings={**stop_at_first_argument, **hostname_is_h}
)
@click.option(
    "--name", default="", metavar="POD", show_default="generated", help="Name of the pod."
)
@vcpus_option
@memory_option("--vm-memory")
@start_option
@click.option(
    "--rm/--keep",
    "remove",
    default=True,
    show_default="rm",
    help="Remove the pod when the command ends, or keep it.",
)
@click.option(
    "--detach",
    "-d",
    is_flag=True,
    help="Run in the background and print the name of the pod.",
)
@detach_keys_option
@timeout_option
@network_options
@container_options
@image_argument
@click.pass_obj
def run(
    settings: Settings,
    /,
    image: str,
    name: str,
    vcpus: int | None,
    vm_memory: int | None,
    start: str | None,
    remove: bool,
    detach: bool,
    detach_keys: str,
    timeout_s: float | None,
    network: str,
    ports: tuple[str, ...],
    command: tuple[str, ...],
    **options: Any,
) -> int:
    """Run COMMAND, or the command of IMAGE, in a container in a new virtual machine.

    Without IMAGE, the root file system is the host's, read-only below a writable overlay.

    \b
    vc run busybox echo hi          run a command in an image (see vc image ls)
    vc run -- uname -a              run a host program on the guest's kernel
    tar c . | vc run -- tar tv      pipe input in and output out
    vc run -it debian               open a terminal; Ctrl-P Ctrl-Q detaches
    vc run -d --name web busybox httpd -f
                                    run in the background; see vc exec, vc logs

    Exits with the code of the command (128 + n for signal n), 124 on a timeout, 125 if vc fails,
    126 if the command cannot be executed, 127 if it does not exist. Ctrl-C is passed to the
    command; a second Ctrl-C deletes the pod.
    """
    pod_id = name or fresh()
    console = Console(detach_keys, options["tty"], detach, timeout_s)
    console.check()
    stdio = Stdio.LOG if detach else Stdio.PIPES
    plan = Plan(
        pod_id,
        image,
        command,
        options,
        stdio,
        vcpus,
        mib(vm_memory),
        Start(start) if start else None,
        remove,
        network,
        port_mappings(ports),
    )
    return run_async(_run(settings, plan, console))


class Plan(Struct, frozen=True):
    """The options of one `vc run`.

    Attributes:
        pod_id: name of the pod.
        image: name of the image; empty for --rootfs.
        command: argv, or the arguments of the image's entrypoint.
        options: values of the container options, by name.
        stdio: where the streams of the command go.
        vcpus: of the machine; None for the configured default.
        memory_mib: of the machine; None for the configured default.
        start: how the machine starts; None for the configured default.
        remove: whether the pod is deleted when the command ends.
    """

    pod_id: str
    image: str
    command: tuple[str, ...]
    options: Mapping[str, Any]
    stdio: Stdio
    vcpus: int | None
    memory_mib: int | None
    start: Start | None
    remove: bool
    network: str
    ports: tuple[PortMapping, ...]


async def _run(settings: Settings, plan: Plan, console: Console) -> int:
    from vc_core.cli.stdio import Interrupts

    interrupts = Interrupts()
    async with settings.runtime() as runtime:
        with interrupts.caught():
            image = (
                await image_of(runtime, plan.image, plan.options["pull"]) if plan.image else None
            )
            spec = container_spec(
                plan.pod_id, plan.command, plan.options, plan.stdio, runtime.volumes, image
            )
            # A pod that is deleted with its command is never forked or saved.
            can_quiesce = None if console.is_detached else False
            pod = await runtime.create(
                plan.pod_id,
                vcpus=plan.vcpus,
                memory_mib=plan.memory_mib,
                start=plan.start,
                can_quiesce=can_quiesce,
                image=plan.image,
                options=PodOptions(
                    dns=name_servers(plan.options),
                    is_pid_shared=plan.options["init"],
                    hosts=host_entries(plan.options["add_hosts"]),
                ),
                network=plan.network,
                ports=plan.ports,
                policy=policy(plan.options),
            )
            async with AsyncExitStack() as undo:
                undo.push_async_callback(pod.delete, force=True)
                container = await pod.create_container(spec)
                with doing("starting a machine"):
                    await pod.start()
                if console.is_detached:
                    undo.pop_all()
                    click.echo(pod.id)
                    return 0
                status = await console.connect(await container.process(), interrupts)
                if status is None:
                    undo.pop_all()
                    click.echo(
                        f"pod {pod.id} keeps running; use 'vc attach {pod.id}' to reattach",
                        err=True,
                    )
                    return 0
                _warn_if_out_of_memory(spec, status)
                if _writes_to_host(spec):
                    # Unmount, so that what was written through mmap reaches the host.
                    await container.stop(0)
                if not plan.remove:
                    undo.pop_all()
                    await _leave_stopped(pod)
                return status.code


def _warn_if_out_of_memory(spec: ContainerSpec, status: ExitStatus) -> None:
    """Say that the command was killed for lack of memory."""
    limit = spec.resources.memory_bytes
    if limit and status.out_of_memory:
        log.warning(
            "the command was killed: it exceeded its memory limit of %s; raise --memory",
            size(limit),
        )


def _writes_to_host(spec: ContainerSpec) -> bool:
    return spec.rootfs.mode is RootfsMode.READ_WRITE or not all(
        mount.read_only for mount in spec.mounts
    )


async def _leave_stopped(pod: Pod) -> None:
    await pod.stop()
    if sys.stderr.isatty():
        click.echo(f"pod {pod.id} is kept; use 'vc pod start {pod.id}' to run it again", err=True)
