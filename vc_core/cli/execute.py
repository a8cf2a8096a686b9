"""vc exec and vc attach: processes of a running container."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from vc_core.cli.completion import pod_id_argument
from vc_core.cli.console import Console
from vc_core.cli.container_options import container_id_option
from vc_core.cli.global_options import Settings, run_async
from vc_core.cli.option_groups import GroupedCommand
from vc_core.cli.process_options import (
    command_argument,
    command_words,
    detach_keys_option,
    process_options,
    process_spec,
    stop_at_first_argument,
    timeout_option,
)
from vc_core.spec.values import Stdio

if TYPE_CHECKING:
    from vc_core.engine.api.container import Container
    from vc_core.engine.api.pod import Pod


@click.command("exec", cls=GroupedCommand, context_settings=stop_at_first_argument)
@container_id_option
@click.option("--detach", "-d", is_flag=True, help="Run in the background; output is discarded.")
@detach_keys_option
@timeout_option
@process_options
@pod_id_argument()
@command_argument
@click.pass_obj
def execute(
    settings: Settings,
    /,
    pod_id: str,
    container_id: str,
    detach: bool,
    detach_keys: str,
    timeout_s: float | None,
    command: tuple[str, ...],
    **options: Any,
) -> int:
    """Run COMMAND in a running container of POD. Exits as 'vc run' does.

    User, groups, environment, working directory and capabilities default to those of the
    container's first process.
    """
    words = command_words(command)
    console = Console(detach_keys, options["tty"], detach, timeout_s)
    console.check()
    return run_async(_execute(settings, pod_id, container_id, words, options, console))


async def _execute(
    settings: Settings,
    pod_id: str,
    container_id: str,
    command: tuple[str, ...],
    options: Mapping[str, Any],
    console: Console,
) -> int:
    from vc_core.cli.stdio import Interrupts

    interrupts = Interrupts()
    async with settings.runtime() as runtime:
        with interrupts.caught():
            container = await chosen(await runtime.get(pod_id), container_id)
            process = process_spec(command, options, (await container.spec()).process)
            started = await container.exec(
                process, Stdio.NULL if console.is_detached else Stdio.PIPES
            )
            if console.is_detached:
                return 0
            status = await console.connect(started, interrupts)
            return status.code if status else 0


@click.command("attach")
@detach_keys_option
@container_id_option
@pod_id_argument()
@click.pass_obj
def attach(settings: Settings, /, pod_id: str, container_id: str, detach_keys: str) -> int:
    """Attach to the first process of a container of POD.

    It must have been detached with the detach keys, or created with a terminal. Exits with the code
    of the process.
    """
    return run_async(_attach(settings, pod_id, container_id, detach_keys))


async def _attach(settings: Settings, pod_id: str, container_id: str, detach_keys: str) -> int:
    from vc_core.cli.stdio import Interrupts

    interrupts = Interrupts()
    async with settings.runtime() as runtime:
        with interrupts.caught():
            container = await chosen(await runtime.get(pod_id), container_id)
            console = Console(detach_keys, (await container.spec()).process.terminal)
            console.check()
            status = await console.connect(await container.process(), interrupts)
            return status.code if status else 0


async def chosen(pod: Pod, container_id: str) -> Container:
    """The named container, or the only one of the pod.

    Raises:
        NotFound: none was named, and the pod does not have exactly one.
    """
    return pod.container(container_id or await pod.only_container())
