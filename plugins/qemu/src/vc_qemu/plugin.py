"""Hypervisor operations on QEMU. Holds what is known of one machine; the work is done next door."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import shutil
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from vc_core.driver_kit import HostProcess, lock_file
from vc_core.spec import (
    FIRST_CHANNEL,
    Capability,
    Channel,
    ChannelKind,
    Drive,
    DriverState,
    Finding,
    Frozen,
    Guest,
    HypervisorError,
    HypervisorSpec,
    Pluggable,
    Plugged,
    PodRef,
    Share,
    VhostUser,
    VmPhase,
    VmSize,
    VmSpec,
    VmStats,
    VmStatus,
    hookimpl,
)
from vc_qemu import (
    balloon,
    channels,
    checkpoint,
    console,
    exit_reason,
    hotplug,
    machine_config,
    process,
    sizing,
)
from vc_qemu.checkpoint import Origin
from vc_qemu.command_line import FIRST, FIRST_FD, MONITOR_FD, STATE_FD, Machine, console_word, words
from vc_qemu.doctor import accelerator, diagnose
from vc_qemu.driver_state import Saved
from vc_qemu.errors import QemuError
from vc_qemu.hotplugged import Cargo
from vc_qemu.options import QemuOptions
from vc_qemu.sockets import listening_socket

if TYPE_CHECKING:
    from vc_qemu.monitor import Monitor

P = ParamSpec("P")
T = TypeVar("T")
log = logging.getLogger(__name__)

_SOCKET = "qmp.sock"
_LOCK = "qmp.lock"
_LOG = "qemu.log"
_TERM_S = 2.0  # QEMU ends within milliseconds of a signal when it can


def translated(function: Callable[P, Awaitable[T]]) -> Callable[P, Coroutine[Any, Any, T]]:
    """The heart's error becomes the contract's."""

    @functools.wraps(function)
    async def call(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return await function(*args, **kwargs)
        except QemuError as error:
            raise HypervisorError(str(error)) from error

    return call


class QemuHypervisor(HypervisorSpec):
    """The plugin `qemu`."""

    options_type = QemuOptions

    def __init__(self, options: QemuOptions) -> None:
        self._options = options
        self._saved = Saved()
        self._is_fresh = True  # has neither made nor taken over a machine
        self._machine: Machine | None = None
        self._origin: Frozen | None = None
        self._cargo: Cargo | None = None
        self._carried: dict[str, Pluggable] = {}

    @hookimpl
    async def vm_capabilities(self, pod: PodRef) -> frozenset[Capability]:
        able = {
            Capability.UNIX_CHANNEL,
            Capability.PAUSE,
            Capability.SHARE,
            Capability.SHARE_PLUG,
            Capability.RESIZE,
        }
        able |= {Capability.DRIVE_PLUG, Capability.PCI_PLUG}
        # Memory is either copied on write, or other processes see what the guest writes.
        own = {Capability.CLONE, Capability.SNAPSHOT}
        return frozenset(
            able | ({Capability.VHOST_USER_PLUG} if self._options.shared_memory else own)
        )

    # --- life --------------------------------------------------------------------------------------------------------

    @hookimpl
    @translated
    async def vm_create(self, pod: PodRef, spec: VmSpec) -> None:
        self._is_fresh = False
        binary = machine_config.binary_of(self._options, spec)
        if spec.origin is not None:
            self._cargo = checkpoint.read(spec.origin, binary).cargo
        self._carried = {one.plugged.id: one.device for one in spec.carried}
        self._saved = Saved()
        self._forget_files(pod)
        console.make(pod.run_dir, self._options.console_max_bytes)
        exit_reason.make_log(pod.run_dir / _LOG)
        chosen = await accelerator(self._options, binary, spec.guest)
        self._origin = spec.origin
        name = str(uuid.uuid4())
        machine = machine_config.machine_of(self._options, pod, spec, binary, chosen, name)
        self._saved = Saved(
            name,
            chosen,
            is_launched=True,
            shares=tuple(share.tag for share in spec.shares),
            places=balloon.places(machine.balloon_port),
            vcpus=spec.vcpus,
            memory_mib=spec.memory_mib,
            folder=str(pod.run_dir),
        )
        # One that goes on from the middle of its work has the channels of that, and then none.
        self._machine = replace(machine, first_channel="") if self._cargo else machine

    @hookimpl
    @translated
    async def vm_start(self, pod: PodRef) -> None:
        if self._machine is None:
            raise QemuError("the machine was not created")
        with contextlib.ExitStack() as files:
            given = {
                MONITOR_FD: files.enter_context(
                    listening_socket(self._folder(pod) / _SOCKET)
                ).fileno()
            }
            if self._machine.first_channel:
                first = listening_socket(channels.first_path(self._folder(pod)))
                given[FIRST_FD] = files.enter_context(first).fileno()
                if self._origin is None:
                    channels.first_path(
                        self._folder(pod)
                    ).unlink()  # it is for the clones: here nobody may take it
            if self._origin is not None:
                given[STATE_FD] = files.enter_context(
                    checkpoint.state_path(self._origin).open("rb")
                ).fileno()
            found = process.spawn(words(self._machine), self._folder(pod) / _LOG, given)
        self._saved = replace(self._saved, process=found)
        try:
            await self._while_alive(pod, found, self._greet(pod))
        except BaseException:
            await found.kill(_TERM_S)
            raise

    @hookimpl
    async def vm_status(self, pod: PodRef) -> VmStatus:
        found = self._process()
        if found is None:
            return VmStatus(VmPhase.ABSENT)
        if found.is_alive():
            return VmStatus(
                VmPhase.PAUSED if await self._is_paused(pod) else VmPhase.RUNNING, found.pid
            )
        return VmStatus(VmPhase.ENDED, 0, exit_reason.reason(self._folder(pod) / _LOG))

    @hookimpl
    async def vm_wait(self, pod: PodRef) -> VmStatus:
        found = self._process()
        if found is not None:
            await found.ended()
        return await self.vm_status(pod)

    @hookimpl
    async def vm_stop(self, pod: PodRef, grace_s: float) -> VmStatus:
        found = self._process()
        if found is not None:
            if grace_s <= 0 or not await found.ended_within(grace_s):
                await found.kill(_TERM_S)
            await found.ended()
        return await self.vm_status(pod)

    @hookimpl
    async def vm_destroy(self, pod: PodRef) -> None:
        found = self._process()
        if found is not None:
            await found.kill(_TERM_S)
        if self._is_fresh:  # the machine's record may be lost
            for lost in HostProcess.find_in(pod.run_dir, console_word(pod.run_dir)):
                await lost.kill(_TERM_S)
        self._forget_files(pod)
        self._saved = Saved(folder=self._saved.folder)  # its console is still asked for
        self._machine = None

    @hookimpl
    @translated
    async def vm_pause(self, pod: PodRef) -> None:
        async with self._monitor(pod) as monitor:
            await monitor.execute("stop")

    @hookimpl
    @translated
    async def vm_resume(self, pod: PodRef) -> None:
        async with self._monitor(pod) as monitor:
            await monitor.execute("cont")

    # --- devices and channels ----------------------------------------------------------------------------------------

    @hookimpl
    @translated
    async def vm_plug(self, pod: PodRef, device: Pluggable) -> Plugged:
        room = hotplug.Room(
            self._folder(pod),
            self._options.root_ports,
            self._options.share_slots,
            self._saved.places,
        )
        if isinstance(device, VhostUser) and not self._options.shared_memory:
            raise QemuError(
                "vhost-user devices map the guest's memory; set hypervisor.qemu.shared_memory for new pods"
            )
        async with self._monitor(pod) as monitor:
            await hotplug.sweep(monitor, device, self._options.unplug_timeout_s)
            place = await hotplug.add(monitor, room, device)
        self._saved = replace(self._saved, places=(*room.taken, place))
        return Plugged(place.id, place.driver, place.address)

    @hookimpl
    @translated
    async def vm_unplug(self, pod: PodRef, plugged: Plugged) -> None:
        place = next((place for place in self._saved.places if place.id == plugged.id), None)
        if place is None:
            return  # unplugged before
        found = self._process()
        if found is not None and found.is_alive():
            async with self._monitor(pod) as monitor:
                await hotplug.remove(
                    monitor, self._folder(pod), place, self._options.unplug_timeout_s
                )
        self._saved = self._saved.without(place.id)

    @hookimpl
    @translated
    async def vm_resize(self, pod: PodRef, size: VmSize) -> VmSize:
        start = VmSize(self._saved.vcpus, self._saved.memory_mib)
        shared, can_lose_vcpus = self._options.shared_memory, self._saved.accelerator == "kvm"
        async with self._monitor(pod) as monitor:
            return await sizing.resize(
                monitor, start, size, shared, can_lose_vcpus, self._options.unplug_timeout_s
            )

    @hookimpl
    @translated
    async def vm_fingerprint(self, pod: PodRef, spec: VmSpec) -> str:
        binary = machine_config.binary_of(self._options, spec)
        chosen = await accelerator(self._options, binary, spec.guest)
        return machine_config.fingerprint(
            machine_config.machine_of(self._options, pod, spec, binary, chosen, "")
        )

    @hookimpl
    @translated
    async def vm_freeze(self, pod: PodRef, into: Frozen) -> None:
        saved, program = self._saved, checkpoint.program_of(self._alive(pod).program)
        origin = Origin(saved.vcpus, saved.memory_mib, 0, program, Cargo(saved.places))
        lies_there = self._machine is not None and self._machine.memory_file == into.memory
        async with self._monitor(pod) as monitor:
            if lies_there:
                await checkpoint.freeze(monitor, into, replace(origin, cargo=None))
            elif self._options.shared_memory:
                raise QemuError("a machine with hypervisor.qemu.shared_memory cannot be saved")
            else:
                async with balloon.taken_out(
                    monitor, saved.places, self._options.unplug_timeout_s
                ) as places:
                    await checkpoint.save(monitor, into, replace(origin, cargo=Cargo(places)))

    @hookimpl
    async def vm_shares(self, pod: PodRef) -> tuple[Plugged, ...]:
        return tuple(
            Plugged(f"share-{tag}", "9p", tag, is_fixed=True) for tag in self._saved.shares
        )

    @hookimpl
    @translated
    async def vm_open_channel(self, pod: PodRef, name: str) -> Channel:
        found = self._alive(pod)
        if name == FIRST_CHANNEL:
            first = channels.take_first(self._folder(pod))
            if first is not None:
                return Channel(FIRST, ChannelKind.UNIX, str(first))
            name = f"{name}.{uuid.uuid4().hex[:12]}"
        async with self._monitor(pod) as monitor:
            await console.trim(self._folder(pod), self._options.console_max_bytes, monitor)
            identity, path = await self._while_alive(
                pod, found, channels.add(monitor, self._folder(pod), name)
            )
        return Channel(identity, ChannelKind.UNIX, str(path))

    @hookimpl
    @translated
    async def vm_close_channel(self, pod: PodRef, channel: Channel) -> None:
        found = self._process()
        if found is None or not found.is_alive():
            Path(channel.address).unlink(missing_ok=True)
            return
        async with self._monitor(pod) as monitor:
            await channels.remove(monitor, channel.id, Path(channel.address))

    # --- what is known -----------------------------------------------------------------------------------------------

    @hookimpl
    async def vm_console(self, pod: PodRef, tail_bytes: int) -> bytes:
        folder, most = self._folder(pod), self._options.console_max_bytes
        written = console.tail(folder, most, tail_bytes)
        if (
            console.is_over(folder, most)
            and (found := self._process()) is not None
            and found.is_alive()
        ):
            try:
                async with self._monitor_soon(pod) as monitor:
                    await console.trim(folder, most, monitor)
            except QemuError as error:
                log.warning("the console of pod %s is not trimmed now: %s", pod.id, error)
        return written

    @hookimpl
    @translated
    async def vm_stats(self, pod: PodRef) -> VmStats:
        process = self._alive(pod)
        return VmStats(*process.usage(), *process.transfers())

    @hookimpl
    async def vm_save(self, pod: PodRef) -> DriverState:
        return DriverState(self._saved.to_json())

    @hookimpl
    @translated
    async def vm_restore(self, pod: PodRef, state: DriverState) -> None:
        self._is_fresh = False
        self._saved = Saved.from_json(state.json)

    @hookimpl
    async def vm_diagnose(self, guests: tuple[Guest, ...]) -> tuple[Finding, ...]:
        return await diagnose(self._options, guests)

    # --- inside ------------------------------------------------------------------------------------------------------

    def _folder(self, pod: PodRef) -> Path:
        """Where the machine's files lie: it may have been made for a pool, before there was this pod."""
        return Path(self._saved.folder) if self._saved.folder else pod.run_dir

    def _process(self) -> HostProcess | None:
        """The machine's process; looked for when whoever started it had no time to write it down."""
        if self._saved.process is None and self._saved.is_launched:
            self._saved = replace(self._saved, process=HostProcess.find("-uuid", self._saved.uuid))
        return self._saved.process

    def _alive(self, pod: PodRef) -> HostProcess:
        found = self._process()
        if found is None or not found.is_alive():
            raise QemuError(
                f"the machine has ended: {exit_reason.reason(self._folder(pod) / _LOG)}"
            )
        return found

    async def _is_paused(self, pod: PodRef) -> bool:
        if not exit_reason.is_full(self._folder(pod) / _LOG):
            return exit_reason.is_paused(self._folder(pod) / _LOG)
        try:  # a guest has filled it: what happened since is not in it
            async with self._monitor_soon(pod) as monitor:
                return str((await monitor.execute("query-status"))["status"]) in exit_reason.PAUSES
        except QemuError as error:
            log.warning("whether the machine of pod %s is paused is not known: %s", pod.id, error)
            return False

    @asynccontextmanager
    async def _monitor(self, pod: PodRef) -> AsyncIterator[Monitor]:
        from vc_qemu import monitor

        self._alive(pod)
        async with (
            await lock_file(self._folder(pod) / _LOCK, exclusive=True),
            monitor.connected(self._folder(pod) / _SOCKET) as found,
        ):
            yield found

    @asynccontextmanager
    async def _monitor_soon(self, pod: PodRef) -> AsyncIterator[Monitor]:
        """Only when it is free now: somebody who only looks does not wait for a boot, or for a QEMU that hangs."""
        try:
            async with asyncio.timeout(console.LOOK_S) as limit, self._monitor(pod) as found:
                limit.reschedule(None)
                yield found
        except TimeoutError as error:
            raise QemuError(f"QEMU's monitor was not free within {console.LOOK_S:g} s") from error

    async def _greet(self, pod: PodRef) -> None:
        async with self._monitor(pod) as monitor:
            if self._origin is not None and self._cargo is not None:
                devices = {
                    name: found
                    for name, found in self._carried.items()
                    if isinstance(found, Share | Drive)
                }
                places = await checkpoint.go_on(
                    monitor, self._folder(pod), self._origin, self._cargo, devices
                )
                self._saved = replace(self._saved, places=places)
            elif self._origin is not None:
                await checkpoint.load(monitor)

    async def _while_alive(self, pod: PodRef, found: HostProcess, call: Awaitable[T]) -> T:
        """Runs a call that a dying QEMU would leave hanging or failing without a word; then its own words are told."""
        working = asyncio.ensure_future(call)
        gone = asyncio.ensure_future(found.ended())
        try:
            await asyncio.wait([working, gone], return_when=asyncio.FIRST_COMPLETED)
            if gone.done() and not found.is_alive():
                raise QemuError(f"QEMU ended: {exit_reason.reason(self._folder(pod) / _LOG)}")
            return await working
        except QemuError as error:
            if found.is_alive():
                raise
            raise QemuError(
                f"QEMU ended: {exit_reason.reason(self._folder(pod) / _LOG)}"
            ) from error
        finally:
            for task in (working, gone):
                task.cancel()
            await asyncio.gather(working, gone, return_exceptions=True)

    def _forget_files(self, pod: PodRef) -> None:
        channels.forget(self._folder(pod))
        if (self._folder(pod) / "slots").is_dir():
            shutil.rmtree(self._folder(pod) / "slots")
