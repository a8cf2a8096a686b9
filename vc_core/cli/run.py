"""vc run: a pod for one command."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from vc_core.cli.console import Console
from vc_core.cli.container_options import container_options, container_spec, hostname_is_h
from vc_core.cli.global_options import Settings, run_async
from vc_core.cli.image_argument import ImageCommand, image_argument
from vc_core.cli.image_pull import image_of
from vc_core.cli.machine_options import memory_option, mib, start_option, vcpus_option
from vc_core.cli.process_options import (
    detach_keys_option,
    stop_at_first_argument,
    timeout_option,
)
from vc_core.cli.render import doing, size
from vc_core.defaults import Start
from vc_core.engine.state.ids import fresh
from vc_core.spec.values import ContainerSpec, ExitStatus, PodOptions, RootfsMode, Stdio

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
    command: tuple[str, ...],
    **options: Any,
) -> int:
    """Run COMMAND, or an image's own, in a container in a virtual machine of its own.

    \b
    vc run busybox echo hi          an image that is here: vc image ls
    vc run -- uname -a              the host's programs, the guest's kernel
    tar c . | vc run -- tar tv      input is piped in, output out
    vc run -it debian               a terminal; Ctrl-P Ctrl-Q leaves it running
    vc run -d --name web busybox httpd -f
                                    the pod outlives this: vc exec, vc pod delete

    Exits with the command's own code (128 + n for a signal), 124 when its time was over, 125 when
    we fail, 126 or 127 when the command cannot be executed or is not there. Ctrl-C reaches the
    command; a second one ends the pod.
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
    )
    return run_async(_run(settings, plan, console))


@dataclass(frozen=True)
class Plan:
    """What the options ask for."""

    pod_id: str
    image: str
    command: tuple[str, ...]
    options: Mapping[str, Any]
    stdio: Stdio
    vcpus: int | None
    memory_mib: int | None
    start: Start | None
    remove: bool


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
            freezes = (
                None if console.is_detached else False
            )  # nobody forks what lasts as long as one command
            pod = await runtime.create(
                plan.pod_id,
                vcpus=plan.vcpus,
                memory_mib=plan.memory_mib,
                start=plan.start,
                can_freeze=freezes,
                image=plan.image,
                options=PodOptions(is_pid_shared=plan.options["init"]),
            )
            async with AsyncExitStack() as undo:
                undo.push_async_callback(pod.delete, force=True)
                container = await pod.create_container(spec)
                with doing("booting a machine"):
                    await pod.start()
                if console.is_detached:
                    undo.pop_all()
                    click.echo(pod.id)
                    return 0
                status = await console.connect(await container.process(), interrupts)
                if status is None:
                    undo.pop_all()
                    click.echo(
                        f"pod {pod.id} goes on; 'vc attach {pod.id}' comes back to it", err=True
                    )
                    return 0
                _tell_of_memory(spec, status)
                if _writes_to_host(spec):
                    await container.stop(
                        0
                    )  # unmounted in order, so that what was written by mmap is on the host
                if not plan.remove:
                    undo.pop_all()
                    await _leave_stopped(pod)
                return status.code


def _tell_of_memory(spec: ContainerSpec, status: ExitStatus) -> None:
    """A kill that nobody has asked for needs a word."""
    limit = spec.resources.memory_bytes
    if limit and status.out_of_memory:
        log.warning(
            "the command was killed: it needed more than its limit of %s (--memory)", size(limit)
        )


def _writes_to_host(spec: ContainerSpec) -> bool:
    return spec.rootfs.mode is RootfsMode.READ_WRITE or not all(
        mount.read_only for mount in spec.mounts
    )


async def _leave_stopped(pod: Pod) -> None:
    await pod.stop()
    if sys.stderr.isatty():
        click.echo(f"pod {pod.id} is kept; 'vc pod start {pod.id}' runs it again", err=True)
