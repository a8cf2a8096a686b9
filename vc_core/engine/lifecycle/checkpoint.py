"""Saves a running pod as a snapshot, and starts pods from one. Callers hold the pod's lock."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path

from msgspec import structs

from vc_core.engine.clones.snapshots import Snapshot
from vc_core.engine.clones.templates import ROOTS
from vc_core.engine.host import bind_mounts, source_paths
from vc_core.engine.host.container_disks import ContainerDisks, copy_sparse
from vc_core.engine.lifecycle import containers, machine
from vc_core.engine.lifecycle.standstill import Standstill
from vc_core.engine.resources import devices, root_folders
from vc_core.engine.resources.host_files import HostFiles
from vc_core.engine.resources.shares import bind
from vc_core.engine.session import pod_network
from vc_core.engine.session.session import Session
from vc_core.engine.state import boot_assets
from vc_core.engine.state.ids import fresh
from vc_core.engine.state.records import HeldDevice, PluggedNic, PluggedShare, PodState
from vc_core.engine.state.rollback import Rollback
from vc_core.engine.state.states import State, require
from vc_core.engine.wiring import network_choice
from vc_core.engine.wiring.vm_calls import start_vm
from vc_core.spec.errors import AgentError, InvalidRequest
from vc_core.spec.events import EventSpec
from vc_core.spec.values import (
    Capability,
    Checkpoint,
    Drive,
    GuestDriver,
    GuestMount,
    MountKind,
    Network,
    RestoredDevice,
    VmSize,
    VmSpec,
)

_DISKS = {GuestDriver.SCSI, GuestDriver.BLK}


async def save(session: Session, into: Checkpoint, name: str) -> tuple[Snapshot, Standstill]:
    """Saves a running pod, which stands still only at the end.

    Raises:
        StateError: the pod does not run.
        InvalidRequest: something of the pod is not supported by checkpoints; names it.
    """
    require(f"pod {session.pod.id}", "save it", session.state.state, [State.RUNNING])
    if Capability.SNAPSHOT not in session.capabilities:
        raise InvalidRequest(
            "the chosen hypervisor, as it is configured, cannot save a machine that is at work"
        )
    specs = [await session.store.container_spec(one) for one in await session.store.containers()]
    states = await containers.reconcile(session)
    logs = _logs(session.config.id, session.state.devices)
    for held in session.state.devices:
        if held not in logs.values():
            _check_device(held)
    for spec in specs:
        if states[spec.id].is_in_guest:
            _check_sources(session.pod.id, spec.id, _sources(states[spec.id].mounts))
    await session.connection.open()
    folders = {
        session.roots_folder / root_folders.name(spec.rootfs): spec.rootfs.path for spec in specs
    }
    lets_go, running = _lets_go(session, logs, folders), session.state
    # Without folders and logs, too: the agent learns that clients may be those of another machine.
    quiesces = lets_go or (
        Capability.QUIESCE in session.capabilities
        and any(state.is_in_guest for state in states.values())
    )
    await session.put_state(structs.replace(running, is_saving=True))
    began = time.monotonic()
    try:
        if quiesces:
            await _let_go(session, folders)
        saving = time.monotonic()
        stood_still_s = await session.hooks.vm_checkpoint(pod=session.pod, into=into)
        if stood_still_s is None:
            stood_still_s = time.monotonic() - saving  # the driver does not say: at most so long
        for container_id, held in logs.items():  # while the guest does not write to them
            copy_sparse(held.device.path, into.folder / f"{container_id}.log")
    finally:
        try:
            if quiesces:
                await _take_again(session)
            detached_s = time.monotonic() - began if lets_go else 0.0
        finally:
            await session.put_state(running)
    saved = tuple((spec, states[spec.id]) for spec in specs)
    files, nothing = session.files_folder, session.nothing_folder
    made = Snapshot(name, session.config, session.state, saved, files, nothing, time.time_ns())
    return made, Standstill(stood_still_s, detached_s)


async def start_from(
    session: Session, host: HostFiles, saved: Snapshot, origin: Checkpoint
) -> None:
    """Starts a new pod's machine from a snapshot. On any failure no machine is left.

    Raises:
        InvalidRequest: something that the saved pod had is missing on this host; names it.
    """
    for spec, state in saved.containers:
        if state.is_in_guest:
            _check_sources(saved.config.id, spec.id, [spec.rootfs.path, *_sources(state.mounts)])
            source_paths.check(spec)
    network_choice.check(session.config, session.capabilities)
    async with Rollback() as rollback:
        rollback.push(_undo, session, session.state)
        async with pod_network.connecting(session, is_early=False) as connecting:
            network = pod_network.restored(session, _nics(saved), await connecting.network())
            await _start(session, host, saved, origin, network)
    await session.notify(EventSpec.pod_started, pod=session.pod)


async def _start(
    session: Session, host: HostFiles, saved: Snapshot, origin: Checkpoint, network: Network | None
) -> None:
    shares = tuple(_moved(session, saved, held) for held in saved.state.shares)
    base = saved.state.base or VmSize(vcpus=saved.config.vcpus, memory_mib=saved.config.memory_mib)
    begun = structs.replace(
        saved.state,
        state=State.READY,
        boot=fresh(),
        shares=shares,
        base=base,
        home=None,
        devices=(),
        network=session.state.network,
    )
    await session.put_state(begun)
    restored = [
        RestoredDevice(device=held.share, plugged=held.plugged)
        for held in shares
        if not held.plugged.is_fixed
    ]
    restored += pod_network.devices(pod_network.taps_of(network), _nics(saved))
    logs = _logs(saved.config.id, saved.state.devices)
    for name, held in logs.items():
        path = host.disks.copy_log(origin.folder / f"{name}.log", session.pod.id, name)
        logs[name] = structs.replace(held, device=structs.replace(held.device, path=path))
    for held in saved.state.devices:
        name = ContainerDisks.whose_log(saved.config.id, held.device.path)
        restored += await _ready(session, logs.get(name, held))
    _bind(session, host.hidden, saved, shares)
    session.connection.boot = session.state.boot
    await start_vm(
        session.hooks,
        session.pod,
        VmSpec(
            guest=boot_assets.apply(
                session.config.assets, await session.hooks.agent_guest(pod=session.pod)
            ),
            vcpus=base.vcpus,
            memory_mib=base.memory_mib,
            shares=tuple(held.share for held in shares if held.plugged.is_fixed),
            binary=session.config.assets.hypervisor.path
            if session.config.assets.hypervisor.is_given
            else None,
            origin=origin,
            restored_devices=tuple(restored),
        ),
        session.put_driver_state,
    )
    await machine.connect(session)
    await pod_network.put_restored(session, network, _nics(saved))
    setup = machine.identity(session, network)
    await session.hooks.agent_set_up_pod(pod=session.pod, setup=setup)
    if Capability.QUIESCE in session.capabilities:
        await session.hooks.agent_unquiesce(pod=session.pod)
    for spec, found in saved.containers:
        await session.store.put_container_state(
            spec.id, structs.replace(found, owes_poststop=False)
        )
    running = structs.replace(session.state, state=State.RUNNING, process=await session.process())
    await session.put_state(running)


async def _undo(session: Session, former: PodState) -> None:
    try:
        unstarted = structs.replace(former, network=session.state.network)
        await machine.undo_start(session, unstarted)
    finally:
        await pod_network.disconnect(session)


async def _let_go(session: Session, folders: Mapping[Path, Path]) -> None:
    try:
        await session.hooks.agent_quiesce(pod=session.pod)
    except AgentError as error:
        used = [held.share for held in session.state.shares if held.users]
        tags = ", ".join(f"{share.tag} is {folders.get(share.path, share.path)}" for share in used)
        raise error.with_detail(f" ({tags})") from error


async def _take_again(session: Session) -> None:
    try:
        await session.hooks.agent_unquiesce(pod=session.pod)
    except BaseException:
        # Operations that wait in the guest wait no longer than that.
        await session.connection.close()
        raise


def _nics(saved: Snapshot) -> tuple[PluggedNic, ...]:
    return () if saved.state.network is None else saved.state.network.nics


def _logs(pod_id: str, devices: tuple[HeldDevice, ...]) -> dict[str, HeldDevice]:
    """Returns the log disks of a pod's containers, by container.

    Log disks are copied; no other disk is.
    """
    names = {ContainerDisks.whose_log(pod_id, held.device.path): held for held in devices}
    return {name: held for name, held in names.items() if name}


def _lets_go(
    session: Session, logs: Mapping[str, HeldDevice], folders: Mapping[Path, Path]
) -> bool:
    """Returns whether the guest must close folders and logs before the checkpoint.

    Refuses a pod whose folders do not support that.
    """
    used = [
        folders.get(held.share.path, held.share.path) for held in session.state.shares if held.users
    ]
    if used and not (
        session.config.options.can_quiesce and Capability.QUIESCE in session.capabilities
    ):
        raise InvalidRequest(
            f"pod {session.pod.id} was made without can_quiesce and uses the directory {used[0]}, "
            "which a snapshot cannot contain; make the pod with can_quiesce, "
            "or give its containers images"
        )
    if logs and Capability.QUIESCE not in session.capabilities:
        raise InvalidRequest(
            f"pod {session.pod.id} has logs, which the guest's agent cannot let go of"
        )
    return bool(used or logs)


def _check_device(held: HeldDevice) -> None:
    """Refuses a device with external state, or one that two machines must not write to."""
    device, users = held.device, ", ".join(held.users)
    drivers = {plugged.driver for plugged in held.plugged}
    if GuestDriver.PCI in drivers or device.path.is_socket():
        raise InvalidRequest(
            f"the device {device.path} of container {users} belongs to this host, "
            "and a snapshot cannot contain it"
        )
    if drivers & _DISKS and not device.read_only:
        raise InvalidRequest(
            f"the disk {device.path} of container {users} is written to, "
            "and two machines must not do that; "
            "make it read-only, or an overlay"
        )


def _sources(mounts: tuple[GuestMount, ...]) -> list[Path]:
    return [one.mount.source for one in mounts if one.mount.kind is MountKind.BIND]


def _check_sources(pod_id: str, container_id: str, sources: list[Path]) -> None:
    for source in sources:
        if not source.exists():
            raise InvalidRequest(
                f"{source}, which container {container_id} of pod {pod_id} has mounted, is gone"
            )


def _moved(session: Session, saved: Snapshot, held: PluggedShare) -> PluggedShare:
    """Returns a share as the new pod has it: the pod's own files are in another folder."""
    own = {saved.files: session.files_folder, saved.nothing: session.nothing_folder}
    path = own.get(held.share.path, held.share.path)
    if os.geteuid() == 0 and path.parent.name == ROOTS:
        path = session.roots_folder / path.name
    elif os.geteuid() == 0 and held.share.path not in own:
        raise InvalidRequest(
            f"the snapshot {saved.name} was made by an older version; save the pod again"
        )
    if path == session.files_folder:
        bind_mounts.prepare(path)
    elif path == session.nothing_folder:
        path.mkdir(mode=0o700, exist_ok=True)
    return structs.replace(held, share=structs.replace(held.share, path=path))


async def _ready(session: Session, held: HeldDevice) -> list[RestoredDevice]:
    """Prepares a device on the host for the new pod, with the ids that it has in the guest."""
    _, hooks = await devices.owner(session.connection.wiring, session.pod, held.device)
    await session.put_state(structs.replace(session.state, devices=(*session.state.devices, held)))
    parts = await hooks.device_prepare(pod=session.pod, device=held.device)
    return [
        RestoredDevice(device=structs.replace(part, id=plugged.id), plugged=plugged)
        for part, plugged in zip(parts, held.plugged, strict=True)
        if isinstance(part, Drive)
    ]


def _bind(
    session: Session, hidden: tuple[Path, ...], saved: Snapshot, shares: tuple[PluggedShare, ...]
) -> None:
    paths = {held.share.path for held in shares}
    for spec, state in saved.containers:
        if state.is_in_guest and session.roots_folder / root_folders.name(spec.rootfs) in paths:
            root_folders.show(session, spec.rootfs, hidden)
        for one in state.mounts:
            if one.subpath and one.mount.destination == "/":
                root_folders.bind(session, spec.rootfs, session.files_folder, hidden, one.subpath)
            elif one.subpath:
                bind(session, one.mount, hidden, one.subpath)
