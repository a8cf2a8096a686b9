"""vc exec: one more process in a running container."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from vc_core.cli.settings import Settings, run_async
from vc_core.cli.specs import command_argument, passing, process_options, process_spec
from vc_core.spec.errors import NotFound
from vc_core.spec.values import ProcessSpec, Stdio

if TYPE_CHECKING:
    from vc_core.engine.container import Container
    from vc_core.engine.pod import Pod


@click.command("exec", context_settings=passing)
@click.option("--container", "-c", "container_id", default="", metavar="ID", help="When the pod has more than one.")
@click.option("--detach", "-d", is_flag=True, help="Do not wait; output is thrown away.")
@process_options
@click.argument("pod_id", metavar="POD")
@command_argument
@click.pass_obj
def execute(
    settings: Settings,
    /,
    pod_id: str,
    container_id: str,
    detach: bool,
    command: tuple[str, ...],
    **options: Any,
) -> int:
    """Run COMMAND in a running container of POD. Exits as 'vc run' does."""
    process = process_spec(command, options)
    return run_async(_execute(settings, pod_id, container_id, process, detach))


async def _execute(settings: Settings, pod_id: str, container_id: str, process: ProcessSpec, detach: bool) -> int:
    from vc_core.cli.stdio import Interrupts, proxy

    interrupts = Interrupts()
    async with settings.runtime() as runtime:
        with interrupts.caught():
            container = await chosen(await runtime.get(pod_id), container_id)
            started = await container.exec(process, Stdio.NULL if detach else Stdio.PIPES)
            if detach:
                return 0
            return (await proxy(started, interrupts)).code


async def chosen(pod: Pod, container_id: str) -> Container:
    """The container that was named, or the pod's only one.

    Raises:
        NotFound: none was named and there is not exactly one.
    """
    if container_id:
        return pod.container(container_id)
    known = [container.id for container in (await pod.status(ask_guest=False)).containers]
    if len(known) != 1:
        names = ", ".join(known) or "none"
        raise NotFound(f"pod {pod.id} has {len(known)} containers ({names}); name one")
    return pod.container(known[0])
