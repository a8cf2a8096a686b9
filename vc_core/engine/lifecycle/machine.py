"""Starts and ends a pod's machine with its agent. Callers hold the pod's lock."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import hashlib
import logging
import os
import resource
import time
from collections.abc import Awaitable, Callable

from msgspec import structs

from vc_core.defaults import Start
from vc_core.engine.clones import templates
from vc_core.engine.clones.pool import Pool
from vc_core.engine.clones.standalone_vm import TemplateNic
from vc_core.engine.clones.templates import Templates
from vc_core.engine.host import bind_mounts, source_paths
from vc_core.engine.host.guest_text import shown
from vc_core.engine.lifecycle import containers
from vc_core.engine.resources import root_folders, rootfs, shares, vm_size
from vc_core.engine.resources.host_files import HostFiles
from vc_core.engine.session import pod_network
from vc_core.engine.session.pod_network import Connecting
from vc_core.engine.session.reconcile import forget_guest, mark_stopped
from vc_core.engine.session.session import Session
from vc_core.engine.session.teardown import end_machine
from vc_core.engine.state import boot_assets
from vc_core.engine.state.ids import fresh
from vc_core.engine.state.records import PluggedShare, PodState
from vc_core.engine.state.rollback import Rollback
from vc_core.engine.state.states import State
from vc_core.engine.wiring import vm_calls
from vc_core.engine.wiring.vm_calls import start_vm
from vc_core.spec.errors import (
    Busy,
    InvalidRequest,
    NetworkError,
    OperationError,
    PodDamaged,
    UnsupportedOperation,
    VcError,
)
from vc_core.spec.events import EventSpec
from vc_core.spec.values import (
    FIRST_CHANNEL,
    ContainerSpec,
    GuestNetwork,
    Network,
    PodSetup,
    VmSize,
    VmSpec,
)

log = logging.getLogger(__name__)

_ORDERLY = "stopped"
_SEED_BYTES = 64
_HOSTNAME_BYTES = 64
_CONSOLE_BYTES = 400
_FEWEST_FILES = 256


class MachineBoot:
    """Boots pods: starts their machines, as clones if requested, and their containers."""

    def __init__(self, templates: Templates, pool: Pool, host: HostFiles) -> None:
        """Creates a `MachineBoot`.

        Args:
            templates: templates that machines are cloned from.
            pool: the pool of waiting clones.
            host: files that containers are made from.
        """
        self._templates = templates
        self._pool = pool
        self._host = host

    async def boot(self, session: Session) -> None:
        """Boots the pod and starts its containers.

        On any failure the pod is as before and no machine is left.
        """
        former = session.state
        specs = [
            await session.store.container_spec(name) for name in await session.store.containers()
        ]
        for spec in specs:
            source_paths.check(spec)
            containers.check(spec)
        boot_assets.check(session.config.assets)
        if former.home is not None:  # left by an earlier boot
            await self._pool.give_up(former.home)
            former = structs.replace(former, home=None)
            await session.put_state(former)
        if (
            not session.pod.run_dir.exists()
        ):  # removed by a reboot of the host; storing the state creates it again
            await session.put_state(former)
        is_early = session.config.start is Start.TEMPLATE
        async with Rollback() as rollback:
            rollback.push(self._undo, session, former)
            async with pod_network.connecting(session, is_early) as connecting:
                unstarted = structs.replace(former, network=session.state.network)
                undone = functools.partial(self._undo_machine, session, unstarted)
                network = await self._bring_up(session, specs, connecting, undone)
            setup = identity(session, network)
            await session.hooks.agent_set_up_pod(pod=session.pod, setup=setup)
            for spec in specs:
                await containers.start(session, self._host, spec, is_fresh=True)
            running = structs.replace(session.state, state=State.RUNNING, reason="")
            await session.put_state(structs.replace(running, process=await session.process()))
        for spec in specs:
            await session.notify(EventSpec.container_started, pod=session.pod, container_id=spec.id)

    async def _bring_up(
        self,
        session: Session,
        specs: list[ContainerSpec],
        connecting: Connecting,
        undone: Callable[[], Awaitable[None]],
    ) -> Network | None:
        """Starts the machine, as a clone if requested and possible, until its agent answers.

        Returns its network, whose interfaces are in the machine.
        """
        wanted = shares.assign({spec.id: await rootfs.wanted(session, spec) for spec in specs})
        config = session.config
        guest = boot_assets.apply(config.assets, await session.hooks.agent_guest(pod=session.pod))
        binary = config.assets.hypervisor.path if config.assets.hypervisor.is_given else None
        size = vm_size.demand(config, ())
        spec = VmSpec(
            guest=guest, vcpus=size.vcpus, memory_mib=size.memory_mib, shares=(), binary=binary
        )
        _check_files()
        await self._check_size(session, spec, specs)
        if config.start is not Start.COLD and session.capabilities >= templates.CLONING:
            try:
                return await self._clone(session, spec, wanted, specs, connecting)
            except NetworkError:
                raise  # a boot would not help
            except (OperationError, InvalidRequest, Busy) as error:
                log.warning(
                    "pod %s boots, for it could not be cloned from a template: %s",
                    session.pod.id,
                    error,
                )
                await undone()
        await self._start_machine(session, spec, shares.of_boot(session, wanted), specs)
        await connect(session)
        return await pod_network.plug(session, await connecting.network())

    async def _check_size(self, session: Session, spec: VmSpec, specs: list[ContainerSpec]) -> None:
        """Checks with the hypervisor the final size of a machine that grows after its start.

        Raises:
            HypervisorError: the size is not possible.
        """
        if session.capabilities >= templates.CLONING and vm_size.can_grow(session.capabilities):
            size = vm_size.demand(session.config, (one.resources for one in specs))
            full = structs.replace(spec, vcpus=size.vcpus, memory_mib=size.memory_mib)
            if full != templates.small(spec, self._templates.defaults, True):
                await session.hooks.vm_fingerprint(pod=session.pod, spec=full)

    async def _clone(
        self,
        session: Session,
        spec: VmSpec,
        wanted: list[PluggedShare],
        specs: list[ContainerSpec],
        connecting: Connecting,
    ) -> Network | None:
        small = templates.small(
            spec, self._templates.defaults, vm_size.can_grow(session.capabilities)
        )
        request = templates.TemplateRequest(session.config.plugins, small)
        if session.config.start is Start.POOL and await self._take(session, request):
            return await pod_network.plug(session, await connecting.network())
        # Only the taps must be there before: the network is connected while the machine starts.
        taps = await connecting.nics()
        if len(taps) == 1:
            template_nic = TemplateNic(taps[0], functools.partial(_first_guest, connecting))
            request = structs.replace(request, nic=template_nic)
        async with self._templates.origin(session.hooks, request) as origin:
            clone = structs.replace(
                small,
                origin=origin.checkpoint,
                restored_devices=tuple(pod_network.devices(taps[: len(origin.nics)], origin.nics)),
            )
            fixed = shares.of_clone(session, wanted, templates.TAGS)
            await self._start_machine(session, clone, fixed, specs)
        await connect(session, FIRST_CHANNEL)
        network = pod_network.cloned(origin.nics, await connecting.network())
        await pod_network.put_restored(session, network, origin.nics)
        await vm_size.fit(session)
        return network

    async def _take(self, session: Session, request: templates.TemplateRequest) -> bool:
        """Takes a machine of the pool for this pod; returns False when none waits."""
        taken = await self._pool.take(session.hooks, request, session.pod)
        if taken is None:
            log.info("no machine waits in the pool for pod %s: one is cloned", session.pod.id)
            return False
        home, ready = taken
        session.connection.boot = fresh()
        state = structs.replace(
            session.state,
            boot=session.connection.boot,
            home=home,
            shares=ready.shares,
            base=ready.base,
            size=None,
        )
        async with Rollback() as rollback:
            rollback.push(self._pool.give_up, home)
            await session.put_state(state)  # first: the machine is the pod's now
        await session.hooks.vm_adopt(pod=session.pod, state=ready.driver)
        await session.put_driver_state()
        await asyncio.gather(session.hooks.vm_resume(pod=session.pod), _prepare(session))
        await connect(session, FIRST_CHANNEL)
        await vm_size.fit(session)
        return True

    async def _start_machine(
        self, session: Session, spec: VmSpec, held: list[PluggedShare], specs: list[ContainerSpec]
    ) -> None:
        for container in specs:
            if any(
                one.share.path.parent == session.roots_folder and container.id in one.users
                for one in held
            ):
                root_folders.show(session, container.rootfs, self._host.hidden)
        if any(one.share.path == session.files_folder for one in held):
            bind_mounts.prepare(session.files_folder)
        spec = structs.replace(spec, shares=tuple(one.share for one in held))
        await start_vm(
            session.hooks,
            session.pod,
            spec,
            session.put_driver_state,
            meanwhile=functools.partial(_prepare, session),
        )
        plugged = await vm_calls.shares_of(session.hooks, session.pod, len(held))
        placed = tuple(
            structs.replace(one, plugged=where) for one, where in zip(held, plugged, strict=True)
        )
        session.connection.boot = fresh()
        base = VmSize(vcpus=spec.vcpus, memory_mib=spec.memory_mib)
        await session.put_state(
            structs.replace(session.state, boot=session.connection.boot, shares=placed, base=base)
        )

    async def _undo(self, session: Session, former: PodState) -> None:
        try:
            unstarted = structs.replace(former, network=session.state.network)
            await self._undo_machine(session, unstarted)
        finally:
            await pod_network.disconnect(session)

    async def _undo_machine(self, session: Session, former: PodState) -> None:
        home = session.state.home
        await undo_start(session, former)
        await self._pool.give_up(home)


def identity(session: Session, network: Network | None = None) -> PodSetup:
    """Returns the identity of a pod, unique also among clones.

    The machine id is the same after a reboot of the pod.
    """
    config = session.config
    about = f"{config.id} {config.created_ns}".encode()
    machine_id = hashlib.blake2b(about, digest_size=16).hexdigest()
    return PodSetup(
        hostname=config.hostname[:_HOSTNAME_BYTES],
        time_ns=time.time_ns(),
        seed=os.urandom(_SEED_BYTES),
        machine_id=machine_id,
        options=pod_network.options(session),
        networks=() if network is None else tuple(one.guest for one in network.interfaces),
    )


def _check_files() -> None:
    """Raises InvalidRequest when the limit of open files is too low for a machine."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if limit != resource.RLIM_INFINITY and limit < _FEWEST_FILES:
        raise InvalidRequest(
            f"only {limit} files may be open at once here, and a machine needs {_FEWEST_FILES}; "
            f"raise the limit: 'ulimit -n {_FEWEST_FILES}'"
        )


async def _first_guest(connecting: Connecting) -> GuestNetwork:
    network = await connecting.network()
    assert network is not None  # it has a tap
    return network.interfaces[0].guest


async def _prepare(session: Session) -> None:
    with contextlib.suppress(UnsupportedOperation):  # then it takes no time
        await session.hooks.agent_prepare(pod=session.pod)


async def connect(session: Session, channel: str = "") -> None:
    """Connects to the agent of a machine that has just started.

    The error of a failure includes the last lines of the guest's console.
    """
    try:
        await session.connection.open(session.deadlines.boot, channel)
    except OperationError as error:
        tail = await session.hooks.vm_console(pod=session.pod, tail_bytes=_CONSOLE_BYTES)
        lines = tail.decode(errors="replace").strip().splitlines()
        if not lines:
            raise
        last = shown(lines[-1].strip())
        raise error.with_detail(f"; the guest's console ends with: {last}") from error


async def undo_start(session: Session, former: PodState) -> None:
    """Removes the machine of a failed start and restores the pod's former state."""
    await end_machine(session, 0)
    await session.put_driver_state()
    await session.put_state(
        structs.replace(former, shares=(), devices=(), size=None, base=None, home=None)
    )
    await forget_guest(session)


async def shut_down(session: Session, grace_s: float, force: bool) -> str:
    """Ends containers and machine in order; with `force`, without asking the guest.

    Returns the reason to record for the stopped pod, as text for people.
    """
    reason = "killed" if force else await _stop_in_order(session, grace_s)
    try:
        await end_machine(session, session.deadlines.stop if reason == _ORDERLY else 0)
    finally:
        await pod_network.disconnect(session)
    await session.put_driver_state()
    await mark_stopped(session, reason)
    return reason


async def _stop_in_order(session: Session, grace_s: float) -> str:
    """Stops the guest in order; when it does not answer, the machine is ended anyway.

    Returns the reason, which names the failure.
    """
    try:
        if session.state.state is State.PAUSED:
            await session.hooks.vm_resume(pod=session.pod)
            await session.put_state(structs.replace(session.state, state=State.RUNNING))
        for name, state in (await containers.reconcile(session)).items():
            if state.state is State.RUNNING:
                spec = await session.store.container_spec(name)
                await containers.stop(session, spec, state, grace_s, with_pod=True)
        await session.connection.open()
        await session.hooks.agent_tear_down_pod(pod=session.pod)
    except PodDamaged:
        raise  # an unreadable record is no reason to kill running containers
    except (VcError, TimeoutError) as error:  # a compromised guest may return any error
        log.warning("pod %s could not be stopped in order and is killed: %s", session.pod.id, error)
        return f"killed: {error}"
    return _ORDERLY
