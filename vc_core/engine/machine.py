"""A pod's machine: from nothing to an agent that answers, and back. Callers hold the pod's lock."""

from __future__ import annotations

import dataclasses
import logging
import os
import time

from vc_core.engine import assets, guest_containers, rootfs, shares
from vc_core.engine.identity import fresh
from vc_core.engine.records import PodState
from vc_core.engine.session import Session, end_machine
from vc_core.engine.states import State
from vc_core.engine.undo import Undo
from vc_core.spec.errors import OperationError
from vc_core.spec.events import EventSpec
from vc_core.spec.values import ContainerSpec, PodSetup, VmSpec

log = logging.getLogger(__name__)

_ORDERLY = "stopped"
_SEED_BYTES = 64
_HOSTNAME_BYTES = 64
_CONSOLE_BYTES = 400


async def boot(session: Session) -> None:
    """Boots the pod and starts its containers. Whatever fails, the pod is as before and no machine is left."""
    former = session.state
    specs = [await session.store.container_spec(name) for name in await session.store.containers()]
    for spec in specs:
        guest_containers.check(spec)
    assets.check(session.config.assets)
    async with Undo() as undo:
        undo.push(_undo_boot, session, former)
        await _start_machine(session, specs)
        await _connect(session)
        hostname = session.config.hostname[:_HOSTNAME_BYTES]
        setup = PodSetup(hostname, time.time_ns(), os.urandom(_SEED_BYTES), session.config.options)
        await session.hooks.agent_set_up_pod(pod=session.pod, setup=setup)
        for spec in specs:
            await guest_containers.start(session, spec)
        await session.put_state(dataclasses.replace(session.state, state=State.RUNNING, reason=""))
    for spec in specs:
        await session.board.wiring.notify(EventSpec.container_started, pod=session.pod, container_id=spec.id)


async def _start_machine(session: Session, specs: list[ContainerSpec]) -> None:
    config = session.config
    guest = assets.apply(config.assets, await session.hooks.agent_guest(pod=session.pod))
    binary = config.assets.hypervisor.path if config.assets.hypervisor.is_given else None
    held = shares.assign({spec.id: await rootfs.wanted(session, spec) for spec in specs})
    if any(one.share.path == session.files_folder for one in held):
        session.files_folder.mkdir(mode=0o700, exist_ok=True)
    spec = VmSpec(guest, config.vcpus, config.memory_mib, tuple(one.share for one in held), binary)
    await session.hooks.vm_create(pod=session.pod, spec=spec)
    await session.save_machine()  # before the start: a crash in between must leave something that can be found
    await session.hooks.vm_start(pod=session.pod)
    await session.save_machine()
    plugged = await session.hooks.vm_shares(pod=session.pod)
    placed = tuple(dataclasses.replace(one, plugged=where) for one, where in zip(held, plugged, strict=True))
    session.board.boot = fresh()
    await session.put_state(dataclasses.replace(session.state, boot=session.board.boot, shares=placed))


async def _connect(session: Session) -> None:
    try:
        await session.connect(session.deadlines.boot)
    except OperationError as error:
        tail = await session.hooks.vm_console(pod=session.pod, tail_bytes=_CONSOLE_BYTES)
        lines = tail.decode(errors="replace").strip().splitlines()
        if lines:
            error.message += f"; the guest's console ends with: {lines[-1].strip()}"
        raise


async def _undo_boot(session: Session, former: PodState) -> None:
    await end_machine(session, 0)
    await session.save_machine()
    await session.put_state(dataclasses.replace(former, shares=(), devices=(), size=None))
    await session.forget_guest()


async def shut_down(session: Session, grace_s: float, force: bool) -> str:
    """Ends containers and machine in order; by force, without asking anybody. Tells how it went, for people."""
    reason = "killed" if force else await _stop_in_order(session, grace_s)
    await end_machine(session, session.deadlines.stop if reason == _ORDERLY else 0)
    await session.save_machine()
    await session.mark_stopped(reason)
    return reason


async def _stop_in_order(session: Session, grace_s: float) -> str:
    """A guest that does not answer cannot be asked: its machine ends all the same, and the reason says so."""
    try:
        if session.state.state is State.PAUSED:
            await session.hooks.vm_resume(pod=session.pod)
            await session.put_state(dataclasses.replace(session.state, state=State.RUNNING))
        for name, state in (await guest_containers.truth(session)).items():
            if state.state is State.RUNNING:
                spec = await session.store.container_spec(name)
                await guest_containers.stop(session, spec, state, grace_s, with_pod=True)
        await session.connect()
        await session.hooks.agent_tear_down_pod(pod=session.pod)
    except (OperationError, TimeoutError) as error:
        log.warning("pod %s could not be stopped in order and is killed: %s", session.pod.id, error)
        return f"killed: {error}"
    return _ORDERLY
