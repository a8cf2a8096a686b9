"""vc run: a pod for one command."""

from __future__ import annotations

import logging
import signal
import sys
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import click

from vc_core.cli.console import Console
from vc_core.cli.render import doing, size
from vc_core.cli.settings import Settings, run_async
from vc_core.cli.specs import (
    command_argument,
    container_options,
    container_spec,
    detach_keys_option,
    mib,
    mib_option,
    passing,
    start_option,
    timeout_option,
)
from vc_core.config import Start
from vc_core.engine.identity import fresh
from vc_core.spec.values import ContainerSpec, ExitStatus, RootfsMode, Stdio

if TYPE_CHECKING:
    from vc_core.engine.container import Container
    from vc_core.engine.pod import Pod

log = logging.getLogger(__name__)


@click.command("run", context_settings=passing)
@click.option("--name", default="", metavar="POD", help="The pod's name; made up by default.")
@click.option("--vcpus", type=click.IntRange(1), help="Processors of the machine.")
@mib_option
@start_option
@click.option("--rm/--keep", "remove", default=True, help="Remove the pod afterwards (default), or leave it stopped.")
@click.option("--detach", "-d", is_flag=True, help="Print the pod's name and return; output is thrown away.")
@detach_keys_option
@timeout_option
@container_options
@command_argument
@click.pass_obj
def run(
    settings: Settings,
    /,
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
    r"""Run COMMAND in a container in a virtual machine of its own.

    \b
    vc run --rootfs / -- uname -a        the host's programs, the guest's kernel
    tar c . | vc run -- tar tv           input is piped in, output out
    vc run -it -- bash                   a terminal in the guest; Ctrl-P Ctrl-Q leaves it running
    vc run -d --name web -- httpd -f     the pod outlives this command: vc exec, vc pod delete

    Exits with the command's own code (128 + n for a signal), 124 when its time was over, 125 when we fail, 126 or 127
    when the command cannot be executed or is not there. Ctrl-C reaches the command; a second one ends the pod.
    """
    pod_id = name or fresh()
    keeps_streams = not detach or options["tty"]
    spec = container_spec(pod_id, command, options, Stdio.PIPES if keeps_streams else Stdio.NULL)
    console = Console(detach_keys, options["tty"], detach, timeout_s)
    console.check()
    return run_async(_run(settings, pod_id, spec, vcpus, mib(vm_memory), start, remove, console))


async def _run(
    settings: Settings,
    pod_id: str,
    spec: ContainerSpec,
    vcpus: int | None,
    memory_mib: int | None,
    start: str | None,
    remove: bool,
    console: Console,
) -> int:
    from vc_core.cli.stdio import Interrupts

    interrupts = Interrupts()
    async with settings.runtime() as runtime:
        with interrupts.caught():
            way = Start(start) if start else None
            freezes = None if console.is_detached else False  # nobody forks what lasts as long as one command
            pod = await runtime.create(pod_id, vcpus=vcpus, memory_mib=memory_mib, start=way, can_freeze=freezes)
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
                    click.echo(f"pod {pod.id} goes on; 'vc attach {pod.id}' comes back to it", err=True)
                    return 0
                await _tell_of_memory(container, spec, status)
                if _writes_to_host(spec):
                    await container.stop(0)  # unmounted in order, so that what was written by mmap is on the host
                if not remove:
                    undo.pop_all()
                    await _leave_stopped(pod)
                return status.code


async def _tell_of_memory(container: Container, spec: ContainerSpec, status: ExitStatus) -> None:
    """A kill that nobody has asked for needs a word."""
    limit = spec.resources.memory_bytes
    if limit and status.signal == signal.SIGKILL and (await container.stats()).oom_kills:
        log.warning("the command was killed: it needed more than its limit of %s (--memory)", size(limit))


def _writes_to_host(spec: ContainerSpec) -> bool:
    return spec.rootfs.mode is RootfsMode.READ_WRITE or not all(mount.read_only for mount in spec.mounts)


async def _leave_stopped(pod: Pod) -> None:
    await pod.stop()
    if sys.stderr.isatty():
        click.echo(f"pod {pod.id} is kept; 'vc pod start {pod.id}' runs it again", err=True)
