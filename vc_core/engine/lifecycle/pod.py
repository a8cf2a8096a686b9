"""The life cycle of a pod: start, pause, resume, stop, delete. Callers hold the pod's lock."""

from __future__ import annotations

from msgspec import structs

from vc_core.engine.clones.pool import Pool
from vc_core.engine.lifecycle import containers, machine
from vc_core.engine.lifecycle.machine import MachineBoot
from vc_core.engine.resources import root_folders, rootfs
from vc_core.engine.resources.host_files import HostFiles
from vc_core.engine.session import teardown
from vc_core.engine.session.reconcile import mark_stopped
from vc_core.engine.session.session import Session
from vc_core.engine.state.records import ContainerState
from vc_core.engine.state.rollback import Rollback
from vc_core.engine.state.states import AT_REST, State, require, require_transition
from vc_core.spec.errors import AlreadyExists, UnsupportedOperation
from vc_core.spec.events import EventSpec
from vc_core.spec.values import Capability, ContainerSpec


class PodLifecycle:
    """Starts, pauses, resumes, stops and deletes pods."""

    def __init__(self, boot: MachineBoot, pool: Pool, host: HostFiles) -> None:
        """Creates a `PodLifecycle`.

        Args:
            boot: boots machines.
            pool: the pool that pods may have their machines from.
            host: files that containers are made from.
        """
        self._boot = boot
        self._pool = pool
        self._host = host

    async def start(self, session: Session) -> None:
        """Boots the machine and starts the containers. Raises StateError if the pod is alive."""
        require(_name(session), "start it", session.state.state, AT_REST)
        await self._boot.boot(session)
        await session.notify(EventSpec.pod_started, pod=session.pod)

    async def pause(self, session: Session) -> None:
        """Pauses the machine.

        Raises:
            StateError: the pod does not run.
            UnsupportedOperation: the hypervisor does not support it.
        """
        require_transition(_name(session), "pause it", session.state.state, State.PAUSED)
        if Capability.PAUSE not in session.capabilities:
            raise UnsupportedOperation("vm_pause")
        async with Rollback() as rollback:
            rollback.push(session.hooks.vm_resume, pod=session.pod)
            await session.hooks.vm_pause(pod=session.pod)
            await _put(session, State.PAUSED)
        await session.notify(EventSpec.pod_paused, pod=session.pod)

    async def resume(self, session: Session) -> None:
        """Resumes the paused machine. Raises StateError when the pod is not paused."""
        require(_name(session), "resume it", session.state.state, [State.PAUSED])
        async with Rollback() as rollback:
            rollback.push(session.hooks.vm_pause, pod=session.pod)
            await session.hooks.vm_resume(pod=session.pod)
            await _put(session, State.RUNNING)
        await containers.sync_clock(session)
        await session.notify(EventSpec.pod_resumed, pod=session.pod)

    async def stop(self, session: Session, grace_s: float, force: bool) -> None:
        """Ends the machine after `grace_s` seconds for each container, at once with `force`."""
        if session.is_alive:
            reason = await machine.shut_down(session, grace_s, force)
            await session.notify(EventSpec.pod_stopped, pod=session.pod, reason=reason)
        elif session.state.state is State.READY:
            await mark_stopped(session, "stopped before it was started")

    async def delete(self, session: Session, force: bool) -> None:
        """Stops the pod without a grace period and removes all its records."""
        await self.stop(session, 0, force)
        teardown.remove_binds(session)  # of a start interrupted before there was a machine
        await self._pool.give_up(session.state.home)
        self._host.disks.remove(session.pod.id)
        await session.store.delete()
        await session.notify(EventSpec.pod_deleted, pod=session.pod)

    async def create_container(self, session: Session, spec: ContainerSpec) -> None:
        """Stores a checked specification; in a running pod also creates the container in the guest.

        Raises:
            AlreadyExists: the pod has a container of this id.
            StateError: the pod is paused.
        """
        allowed = frozenset(State) - {State.PAUSED}
        require(_name(session), "create a container", session.state.state, allowed)
        root_folders.warn(session.config, spec.rootfs)
        if spec.id in await session.store.containers():
            raise AlreadyExists(f"{_name(session)} has a container {spec.id} already")
        async with Rollback() as rollback:
            rollback.push(session.store.delete, spec.id)
            await session.store.put_container_spec(spec)
            await session.store.put_container_state(spec.id, ContainerState(State.READY, ""))
            if session.state.state is State.RUNNING:
                await containers.make(session, self._host, spec)
            else:
                # Refuses a rootfs that these plugins do not support.
                await rootfs.block_of(session, spec)
        await session.notify(EventSpec.container_created, pod=session.pod, container_id=spec.id)


async def _put(session: Session, state: State) -> None:
    await session.put_state(structs.replace(session.state, state=state, reason=""))


def _name(session: Session) -> str:
    return f"pod {session.pod.id}"
