"""Life cycle of a container in the guest, with undo steps. Callers hold the pod's lock."""

from __future__ import annotations

import contextlib
import logging
import signal
import time

from msgspec import structs

from vc_core.driver_kit.timeouts import timeout_after
from vc_core.engine.host import oci_hooks, source_paths
from vc_core.engine.lifecycle import restart_policy
from vc_core.engine.lifecycle.process_spec import first_process
from vc_core.engine.resources import container_log, devices, mount_rules, rootfs, shares, vm_size
from vc_core.engine.resources.host_files import HostFiles
from vc_core.engine.session import pod_network
from vc_core.engine.session.exit_reason import true_state
from vc_core.engine.session.reconcile import run_poststop
from vc_core.engine.session.session import Session
from vc_core.engine.state.ids import checked, checked_hostname, fresh
from vc_core.engine.state.records import ContainerState
from vc_core.engine.state.rollback import Rollback
from vc_core.engine.state.states import State
from vc_core.spec.errors import InvalidRequest, OperationError, OperationTimeout, StateError
from vc_core.spec.events import EventSpec
from vc_core.spec.values import (
    ContainerSpec,
    ExitStatus,
    GuestContainer,
    OciHooks,
    Resources,
    Stdio,
)

log = logging.getLogger(__name__)


def check(spec: ContainerSpec) -> ContainerSpec:
    """Checks a specification; returns it with its mounts resolved and ordered.

    Raises:
        InvalidRequest: naming what is wrong.
    """
    checked("container", spec.id)
    checked_hostname(spec.hostname)
    if not spec.process.args:
        raise InvalidRequest(f"container {spec.id} has no command")
    rootfs.check(spec)
    vm_size.check(spec.resources)
    restart_policy.check(spec)
    for device in spec.devices:
        devices.check(device)
    return structs.replace(
        spec,
        rootfs=structs.replace(spec.rootfs, path=source_paths.resolved(spec.rootfs.path)),
        mounts=mount_rules.in_order(
            spec.has_default_mounts, tuple(mount_rules.checked(mount) for mount in spec.mounts)
        ),
        devices=tuple(
            structs.replace(device, path=source_paths.resolved(device.path))
            for device in spec.devices
        ),
    )


async def make(
    session: Session,
    host: HostFiles,
    spec: ContainerSpec,
    starts: bool = False,
    is_fresh: bool = False,
) -> ContainerState:
    """Creates a container in the guest; its first process waits, or runs with `starts`.

    On any failure nothing of the container is left.

    Args:
        session: session of its pod.
        host: files that it is made from.
        spec: the container.
        starts: whether its first process runs at once.
        is_fresh: whether the machine has just started, so that no earlier call left anything in it.
    """
    restart_policy.require(session.capabilities, spec)
    oci_hooks.require(session.capabilities, spec)
    source_paths.check(spec)
    former = await session.store.container_state(spec.id)
    async with Rollback() as rollback:
        if not is_fresh:
            await clear(session, spec.id)
        rollback.push(vm_size.fit, session, spec.id)
        await vm_size.fit(session, spec.id, spec.resources)
        rollback.push(rootfs.release, session, spec.id)
        root = await rootfs.acquire(session, host, spec)
        rollback.push(shares.unbind, session, root.bound)
        log = await container_log.plug(session, host.disks, spec)
        passed = [await devices.acquire(session, device, spec.id) for device in spec.devices]
        made = []
        for one in spec.mounts:
            is_first = (
                former.state is State.READY
            )  # files that were removed from a volume since must stay removed
            made.append(
                await shares.mount(
                    session,
                    spec,
                    structs.replace(one, copy_up=one.copy_up and is_first),
                    host.hidden,
                )
            )
            rollback.push(shares.unbind, session, (made[-1],))
        stdio = Stdio.NULL if spec.stdio is Stdio.LOG and log is None else spec.stdio
        hostname = session.config.hostname
        process = first_process(spec, hostname)
        named = structs.replace(
            spec,
            process=process,
            hostname=spec.hostname or hostname,
            stdio=stdio,
            hooks=oci_hooks.of_guest(spec.hooks, session.deadlines.default),
        )
        container = GuestContainer(
            spec=named,
            token=fresh(),
            rootfs=root.guest,
            mounts=tuple(made),
            devices=tuple(passed),
            pod=pod_network.options(session),
            starts=starts,
            log=log,
        )
        rollback.push(session.hooks.agent_remove_container, pod=session.pod, container_id=spec.id)
        await session.hooks.agent_create_container(pod=session.pod, container=container)
        reachable = (*root.bound, *made)
        state = ContainerState(
            State.READY, container.token, True, None, reachable, root.block, former.owes_poststop
        )
        await session.store.put_container_state(spec.id, state)
    return state


async def clear(session: Session, container_id: str) -> None:
    """Removes what a call left that was killed before it recorded the container as in the guest."""
    await session.connection.open()
    await session.hooks.agent_remove_container(pod=session.pod, container_id=container_id)
    await rootfs.release(session, container_id)


async def start(
    session: Session, host: HostFiles, spec: ContainerSpec, is_fresh: bool = False
) -> ContainerState:
    """Starts the container; creates it in the guest first when it is not there.

    Undone when it fails. Arguments as for `make`.
    """
    former = await session.store.container_state(spec.id)
    async with Rollback() as rollback:
        rollback.push(_forget, session, spec, former.gone(former.state))
        state = former
        if former.state is State.STOPPED and former.is_in_guest:
            await remove(session, spec, former)
            await session.store.put_container_state(spec.id, former.gone(former.state))
            state = former.gone(former.state)
        runs_at_once = not state.is_in_guest and spec.hooks == OciHooks()
        if not state.is_in_guest:
            state = await make(session, host, spec, runs_at_once, is_fresh)
        pid = (await session.hooks.vm_status(pod=session.pod)).pid if spec.hooks.are_on_host else 0
        state = await _prestart(session, spec, state, pid)
        if not runs_at_once:
            await session.hooks.agent_start_container(pod=session.pod, container_id=spec.id)
        state = structs.replace(state, state=State.RUNNING, exit=None, started_ns=time.time_ns())
        await session.store.put_container_state(spec.id, state)
    told = oci_hooks.state_of(spec, "running", pid)
    await oci_hooks.run(spec.hooks.poststart, told, session.deadlines.default)
    return state


async def _prestart(
    session: Session, spec: ContainerSpec, state: ContainerState, pid: int
) -> ContainerState:
    if not spec.hooks.are_on_host:
        return state
    owing = structs.replace(state, owes_poststop=True)
    await session.store.put_container_state(spec.id, owing)
    told, limit_s = oci_hooks.state_of(spec, "created", pid), session.deadlines.default
    await oci_hooks.run_required(spec.hooks.prestart, told, limit_s)
    await oci_hooks.run_required(spec.hooks.create_container, told, limit_s, is_apart=True)
    return owing


async def _forget(session: Session, spec: ContainerSpec, former: ContainerState) -> None:
    current = await session.store.container_state(spec.id)
    await remove(session, spec, current)
    await session.store.put_container_state(spec.id, former)
    await run_poststop(session, spec, current)


async def stop(
    session: Session,
    spec: ContainerSpec,
    state: ContainerState,
    grace_s: float,
    with_pod: bool = False,
) -> ContainerState:
    """Asks the first process to end, kills all processes after the grace period, and cleans up.

    Args:
        session: session of its pod.
        spec: the container.
        state: its current state.
        grace_s: seconds for its first process to end by itself.
        with_pod: whether the machine ends right after, and with it the container's plugged devices.
    """
    status = state.exit
    if state.is_in_guest:
        await session.connection.open()
        if state.state is State.RUNNING and status is None:
            status = await _end(session, spec, state.token, grace_s)
        await remove(session, spec, state, with_pod)
    stopped = structs.replace(state.gone(State.STOPPED, status), owes_poststop=False)
    await session.store.put_container_state(spec.id, stopped)
    await run_poststop(session, spec, state)
    if status is not None and state.state is State.RUNNING:
        await session.notify(
            EventSpec.container_stopped, pod=session.pod, container_id=spec.id, status=status
        )
    return stopped


async def _end(session: Session, spec: ContainerSpec, token: str, grace_s: float) -> ExitStatus:
    container_id = spec.id
    if grace_s > 0:
        try:
            await session.hooks.agent_signal(
                pod=session.pod, container_id=container_id, token=token, signal=spec.stop_signal
            )
            async with timeout_after(grace_s):
                return await session.hooks.agent_wait(
                    pod=session.pod, container_id=container_id, token=token
                )
        except StateError:
            pass  # it has just ended by itself: the wait below answers at once
        except TimeoutError:
            pass  # the grace period is over
    with contextlib.suppress(StateError):  # as above
        await session.hooks.agent_signal(
            pod=session.pod, container_id=container_id, token=token, signal=signal.SIGKILL
        )
    limit_s = session.deadlines.of("agent_wait")
    try:
        async with timeout_after(limit_s):
            return await session.hooks.agent_wait(
                pod=session.pod, container_id=container_id, token=token
            )
    except TimeoutError as error:
        raise OperationTimeout(limit_s, "agent_wait", "", session.pod.id) from error


async def remove(
    session: Session, spec: ContainerSpec, state: ContainerState, with_pod: bool = False
) -> None:
    """Removes a container from the guest, and its devices from the machine.

    May be called twice.
    """
    await session.hooks.agent_remove_container(pod=session.pod, container_id=spec.id)
    if not with_pod:
        await rootfs.release(session, spec.id)
        await vm_size.fit(session, spec.id)
    await shares.unbind(session, state.mounts)


async def sync_clock(session: Session) -> None:
    """Notifies the guest that it runs again, which sets its clock.

    An error of the guest is ignored: the machine runs anyway.
    """
    try:
        await session.connection.open()
        await session.connection.list_containers()
    except OperationError as error:
        log.warning("the clock of pod %s may be behind: %s", session.pod.id, error)


async def update(session: Session, spec: ContainerSpec, limits: Resources) -> None:
    """Changes the limits of a container in the guest; undone when it fails.

    The machine grows before the change, and shrinks after it.
    """
    pod, agent = session.pod, session.hooks
    async with Rollback() as rollback:
        await session.connection.open()
        rollback.push(vm_size.fit, session, spec.id, spec.resources)
        await vm_size.fit(session, spec.id, vm_size.larger(spec.resources, limits))
        rollback.push(
            agent.agent_update_container, pod=pod, container_id=spec.id, resources=spec.resources
        )
        await agent.agent_update_container(pod=pod, container_id=spec.id, resources=limits)
        await vm_size.fit(session, spec.id, limits)
        rollback.push(session.store.put_container_spec, spec)
        await session.store.put_container_spec(structs.replace(spec, resources=limits))


async def current_states(session: Session) -> dict[str, ContainerState]:
    """Returns the current state of every container. Asks the guest if it runs; changes nothing."""
    states = {
        name: await session.store.container_state(name) for name in await session.store.containers()
    }
    if session.state.state is State.STOPPED:
        return {name: state.after_machine() for name, state in states.items()}
    if session.state.state is not State.RUNNING or not any(
        state.is_in_guest for state in states.values()
    ):
        return states
    await session.connection.open()
    found = {one.id: one for one in await session.connection.list_containers()}
    for name, state in states.items():
        if state.state is State.RUNNING and (name not in found or found[name].exit is not None):
            status = found[name].exit if name in found else None
            states[name] = structs.replace(state, state=State.STOPPED, exit=status)
        if name in found:
            one = found[name]
            states[name] = structs.replace(states[name], restarts=one.restarts, health=one.health)
    return states


async def observed_states(session: Session) -> dict[str, ContainerState]:
    """Like `current_states`, for readers: the end of the machine meanwhile is no error."""
    try:
        return await current_states(session)
    except OperationError:
        session.state = await true_state(session)
        if session.is_alive:
            raise
        return await current_states(session)


async def reconcile(session: Session) -> dict[str, ContainerState]:
    """Stores the states that `current_states` returns, and sends events for what has ended."""
    states = await current_states(session)
    for name, state in states.items():
        stored = await session.store.container_state(name)
        if stored != state:
            await session.store.put_container_state(name, state)
            if state.exit is not None and stored.state is State.RUNNING:
                await session.notify(
                    EventSpec.container_stopped,
                    pod=session.pod,
                    container_id=name,
                    status=state.exit,
                )
    return states


async def of(session: Session, container_id: str) -> tuple[ContainerSpec, ContainerState]:
    """Returns one container's specification and current state, after storing the state.

    Raises:
        NotFound: the pod has no such container.
    """
    spec = await session.store.container_spec(container_id)
    return spec, (await reconcile(session))[container_id]
