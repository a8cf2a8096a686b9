"""The hypervisor operations on QEMU.

Holds the state of one machine; the other modules do the work.
"""

from __future__ import annotations

import contextlib
import logging
import shutil
import uuid
from dataclasses import replace
from pathlib import Path

from msgspec import structs

from vc_core.driver_kit import HostProcess, decode_record, encode_record, resize
from vc_core.spec import (
    FIRST_CHANNEL,
    Capability,
    Channel,
    ChannelKind,
    Checkpoint,
    Drive,
    DriverState,
    Finding,
    Guest,
    HypervisorError,
    HypervisorSpec,
    Nic,
    Pluggable,
    Plugged,
    PodRef,
    Share,
    VhostUser,
    VmConfinement,
    VmSize,
    VmSpec,
    VmStats,
    VmStatus,
    hookimpl,
)
from vc_qemu import (
    accelerator,
    balloon,
    channels,
    checkpoint,
    console,
    exit_reason,
    hotplug,
    machine_config,
    sizing,
)
from vc_qemu.checkpoint import Manifest
from vc_qemu.command_line import (
    CONSOLE,
    FIRST,
    FIRST_FD,
    MONITOR_FD,
    STATE_FD,
    Machine,
    console_word,
)
from vc_qemu.driver_state import SCHEMA, QemuState
from vc_qemu.errors import QemuError
from vc_qemu.hotplug import Place
from vc_qemu.hotplugged import Device, Hotplugged
from vc_qemu.jail import limits
from vc_qemu.jail.inside import View
from vc_qemu.jail.launch import launch
from vc_qemu.options import QemuOptions
from vc_qemu.running_machine import LOG, MONITOR_SOCKET, RunningMachine
from vc_qemu.sockets import listening_socket

log = logging.getLogger(__name__)


class QemuHypervisor(HypervisorSpec):
    """The plugin `qemu`."""

    options_type = QemuOptions

    def __init__(self, options: QemuOptions) -> None:
        self._options = options
        self._state = QemuState()
        self._is_fresh = True  # has neither created nor adopted a machine
        self._machine: Machine | None = None
        self._origin: Checkpoint | None = None
        self._hotplugged: Hotplugged | None = None
        self._interfaces: tuple[Place, ...] = ()
        self._restored_devices: dict[str, Device] = {}

    @hookimpl
    async def vm_capabilities(self, pod: PodRef) -> frozenset[Capability]:
        able = {
            Capability.UNIX_CHANNEL,
            Capability.PAUSE,
            Capability.SHARE,
            Capability.SHARE_PLUG,
            Capability.RESIZE,
        }
        able |= {Capability.DRIVE_PLUG, Capability.PCI_PLUG, Capability.NIC}
        # Memory is either copied on write, or other processes see what the guest writes.
        own = {Capability.CLONE, Capability.SNAPSHOT}
        return frozenset(
            able | ({Capability.VHOST_USER_PLUG} if self._options.shared_memory else own)
        )

    # --- life cycle -------------------------------------------------------------------------------

    @hookimpl
    async def vm_create(self, pod: PodRef, spec: VmSpec) -> None:
        self._is_fresh = False
        binary = machine_config.binary_of(self._options, spec)
        if spec.origin is not None:
            saved = checkpoint.read(spec.origin, binary)
            self._hotplugged, self._interfaces = saved.hotplugged, saved.interfaces
        self._restored_devices = {
            restored.plugged.id: restored.device
            for restored in spec.restored_devices
            if isinstance(restored.device, Share | Drive | Nic)
        }
        self._state = QemuState()
        self._forget_files(pod)
        console.make(pod.run_dir, self._options.console_max_bytes)
        exit_reason.make_log(pod.run_dir / LOG)
        chosen = await accelerator.choose(self._options, binary, spec.guest)
        self._origin = spec.origin
        name = str(uuid.uuid4())
        machine = machine_config.machine_of(self._options, pod, spec, binary, chosen, name)
        self._state = QemuState(
            uuid=name,
            accelerator=chosen,
            is_launched=True,
            shares=tuple(share.tag for share in spec.shares),
            places=balloon.places(machine.balloon_port),
            vcpus=spec.vcpus,
            memory_mib=spec.memory_mib,
            folder=str(pod.run_dir),
        )
        # A machine that starts from a running one has that one's ports until it runs.
        self._machine = structs.replace(machine, first_channel="") if self._hotplugged else machine

    @hookimpl
    async def vm_start(self, pod: PodRef) -> None:
        if self._machine is None:
            raise QemuError("the machine was not created")
        with contextlib.ExitStack() as files:
            given = {
                MONITOR_FD: files.enter_context(
                    listening_socket(self._folder(pod) / MONITOR_SOCKET)
                ).fileno()
            }
            if self._machine.first_channel:
                first = listening_socket(channels.first_path(self._folder(pod)))
                given[FIRST_FD] = files.enter_context(first).fileno()
                if self._origin is None:
                    channels.first_path(self._folder(pod)).unlink()  # reserved for the clones
            if self._origin is not None:
                given[STATE_FD] = files.enter_context(
                    checkpoint.state_path(self._origin).open("rb")
                ).fileno()
            memories: tuple[Path, ...] = ()
            if self._origin is not None and self._hotplugged is not None:
                memories = self._hotplugged.memory_files(self._origin.folder)
            log, options = self._folder(pod) / LOG, self._options
            jailed = launch(options.jail, self._machine, memories, options.proof_dir, log, given)
        self._state = replace(
            self._state,
            process=jailed.process,
            layers=tuple(jailed.layers),
            missing=tuple(map(str, jailed.missing)),
        )
        machine = self._running(pod)
        try:
            await machine.while_alive(self._begin(machine))
        except BaseException:
            await machine.end()
            raise

    @hookimpl
    async def vm_status(self, pod: PodRef) -> VmStatus:
        status = await self._running(pod).status()
        if not status.pid:
            return status
        confinement = VmConfinement(layers=self._state.layers, missing=self._state.missing)
        return VmStatus(phase=status.phase, pid=status.pid, confinement=confinement)

    @hookimpl
    async def vm_wait(self, pod: PodRef) -> VmStatus:
        return await self._running(pod).wait()

    @hookimpl
    async def vm_stop(self, pod: PodRef, grace_s: float) -> VmStatus:
        return await self._running(pod).stop(grace_s)

    @hookimpl
    async def vm_destroy(self, pod: PodRef) -> None:
        await self._running(pod).end()
        if self._is_fresh:  # the machine's record may be lost
            for lost in HostProcess.find_in(pod.run_dir / CONSOLE, console_word(pod.run_dir)):
                await RunningMachine(lost, pod.run_dir).end()
        limits.leave_groups()
        self._forget_files(pod)
        self._state = QemuState(folder=self._state.folder)  # vm_console still needs it
        self._machine = None

    @hookimpl
    async def vm_pause(self, pod: PodRef) -> None:
        async with self._running(pod).monitor() as monitor:
            await monitor.execute("stop")

    @hookimpl
    async def vm_resume(self, pod: PodRef) -> None:
        async with self._running(pod).monitor() as monitor:
            # The save of a process that was killed would stop the machine at its end.
            await monitor.execute("migrate_cancel")
            await checkpoint.cont(monitor)

    # --- devices and channels ---------------------------------------------------------------------

    @hookimpl
    async def vm_plug(self, pod: PodRef, device: Pluggable) -> Plugged:
        room = hotplug.Room(
            await self._view(self._running(pod)),
            self._options.root_ports,
            self._options.share_slots,
            self._state.places,
        )
        if isinstance(device, VhostUser) and not self._options.shared_memory:
            raise QemuError(
                "vhost-user devices map the guest's memory; "
                "set hypervisor.qemu.shared_memory for new pods"
            )
        async with self._running(pod).monitor() as monitor:
            await hotplug.sweep(monitor, device, self._options.unplug_timeout_s)
            place = await hotplug.add(monitor, room, device)
        self._state = replace(self._state, places=(*room.taken, place))
        return Plugged(id=place.id, driver=place.driver, address=place.address)

    @hookimpl
    async def vm_unplug(self, pod: PodRef, plugged: Plugged) -> None:
        place = next((place for place in self._state.places if place.id == plugged.id), None)
        if place is None:
            return  # unplugged before
        if self._running(pod).is_alive():
            async with self._running(pod).monitor() as monitor:
                view = await self._view(self._running(pod))
                await hotplug.remove(monitor, view, place, self._options.unplug_timeout_s)
        self._state = self._state.without(place.id)

    @hookimpl
    async def vm_resize(self, pod: PodRef, size: VmSize) -> VmSize:
        state, options = self._state, self._options
        async with self._running(pod).monitor() as monitor:
            machine = sizing.QemuSize(monitor, options.shared_memory, options.unplug_timeout_s)
            return await resize(machine, state.start_size, size, state.can_unplug_vcpus)

    @hookimpl
    async def vm_fingerprint(self, pod: PodRef, spec: VmSpec) -> str:
        binary = machine_config.binary_of(self._options, spec)
        chosen = await accelerator.choose(self._options, binary, spec.guest)
        return machine_config.fingerprint(
            machine_config.machine_of(self._options, pod, spec, binary, chosen, "")
        )

    @hookimpl
    async def vm_checkpoint(self, pod: PodRef, into: Checkpoint) -> float | None:
        state, machine = self._state, self._running(pod)
        program = checkpoint.program_of((await machine.live_process()).program)
        manifest = Manifest(state.vcpus, state.memory_mib, 0, program, Hotplugged(state.places))
        is_template = self._machine is not None and self._machine.memory_file == into.memory
        async with machine.monitor() as monitor:
            await channels.settle(monitor)
            if is_template:
                template = replace(manifest, hotplugged=None, interfaces=state.places)
                await checkpoint.save_template(monitor, into, template, machine.kill)
                return None  # it stays stopped
            if self._options.shared_memory:
                raise QemuError("a machine with hypervisor.qemu.shared_memory cannot be saved")
            async with balloon.taken_out(
                monitor, state.places, self._options.unplug_timeout_s
            ) as places:
                saved = replace(manifest, hotplugged=Hotplugged(places))
                return await checkpoint.save(monitor, into, saved, machine.kill)

    @hookimpl
    async def vm_shares(self, pod: PodRef) -> tuple[Plugged, ...]:
        return self._state.fixed_shares()

    @hookimpl
    async def vm_open_channel(self, pod: PodRef, name: str) -> Channel:
        machine = self._running(pod)
        await machine.live_process()
        if name == FIRST_CHANNEL:
            first = channels.take_first(machine.folder)
            if first is not None:
                return Channel(id=FIRST, kind=ChannelKind.UNIX, address=str(first))
            name = f"{name}.{uuid.uuid4().hex[:12]}"
        async with machine.monitor() as monitor:
            await console.trim(machine.folder, self._options.console_max_bytes, monitor)
            channel, path = await machine.while_alive(channels.add(monitor, machine.folder, name))
        return Channel(id=channel, kind=ChannelKind.UNIX, address=str(path))

    @hookimpl
    async def vm_close_channel(self, pod: PodRef, channel: Channel) -> None:
        await channels.close(self._running(pod), channel.id, Path(channel.address))

    # --- information ------------------------------------------------------------------------------

    @hookimpl
    async def vm_console(self, pod: PodRef, tail_bytes: int) -> bytes:
        machine, max_bytes = self._running(pod), self._options.console_max_bytes
        text = console.tail(machine.folder, max_bytes, tail_bytes)
        if console.is_over(machine.folder, max_bytes) and machine.is_alive():
            try:
                async with machine.monitor_if_free() as monitor:
                    await console.trim(machine.folder, max_bytes, monitor)
            except HypervisorError as error:
                log.warning("the console of pod %s is not trimmed now: %s", pod.id, error)
        return text

    @hookimpl
    async def vm_stats(self, pod: PodRef) -> VmStats:
        return await self._running(pod).stats()

    @hookimpl
    async def vm_diagnose(self, guests: tuple[Guest, ...]) -> tuple[Finding, ...]:
        from vc_qemu.doctor import diagnose

        return await diagnose(self._options, guests)

    @hookimpl
    async def vm_export_state(self, pod: PodRef) -> DriverState:
        return DriverState(json=encode_record(self._state, SCHEMA))

    @hookimpl
    async def vm_adopt(self, pod: PodRef, state: DriverState) -> None:
        self._is_fresh = False
        self._state = decode_record(state.json, QemuState, SCHEMA, "the machine's state")

    # --- internals --------------------------------------------------------------------------------

    def _running(self, pod: PodRef) -> RunningMachine:
        self._state = self._state.with_process("-uuid", self._state.uuid)
        return RunningMachine(self._state.process, self._folder(pod))

    async def _view(self, machine: RunningMachine) -> View:
        return View(await machine.live_process(), machine.folder, self._state.has_root)

    def _folder(self, pod: PodRef) -> Path:
        """The folder of the machine's files; a machine of the pool keeps its first folder."""
        return Path(self._state.folder) if self._state.folder else pod.run_dir

    async def _begin(self, machine: RunningMachine) -> None:
        """Returns when the guest's vCPUs run."""
        async with machine.monitor() as monitor:
            if self._origin is None:
                return
            view, devices = await self._view(machine), self._restored_devices
            if self._hotplugged is not None:
                places = await checkpoint.go_on(
                    monitor, view, self._origin, self._hotplugged, devices
                )
            else:
                places = await checkpoint.load(monitor, view, self._interfaces, devices)
            self._state = replace(self._state, places=places)

    def _forget_files(self, pod: PodRef) -> None:
        channels.forget(self._folder(pod))
        if (self._folder(pod) / "slots").is_dir():
            shutil.rmtree(self._folder(pod) / "slots")
