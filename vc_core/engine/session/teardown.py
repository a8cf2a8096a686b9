"""The end of a pod's machine on the host."""

from __future__ import annotations

from collections.abc import Awaitable

from vc_core.engine.host import bind_mounts
from vc_core.engine.session.session import Session
from vc_core.engine.wiring import vm_calls
from vc_core.spec.errors import VcError


async def end_machine(session: Session, grace_s: float) -> None:
    """Ends the machine and removes its files and mounts on the host; its channels are closed.

    Each step is taken whatever the result of earlier ones; the first error is raised at the end.
    """
    hooks, pod, devices = session.hooks, session.pod, session.state.devices
    errors: list[VcError] = []

    async def tried(step: Awaitable[object]) -> None:
        try:
            await step
        except VcError as error:
            errors.append(error)

    await tried(hooks.agent_disconnect(pod=pod))
    if not errors:
        session.connection.channel = None
    await tried(hooks.vm_stop(pod=pod, grace_s=grace_s))
    await tried(hooks.vm_destroy(pod=pod))
    if not errors:  # otherwise it may still run and use the mounts
        remove_binds(session)
    for held in devices:
        await tried(vm_calls.give_back(session.connection.wiring, pod, held))
    if errors:
        raise errors[0]


def remove_binds(session: Session) -> None:
    """Unmounts everything that was bound for the pod, also by an interrupted process."""
    for folder in (session.files_folder, session.roots_folder):
        bind_mounts.remove_all(folder)
