"""The hypervisor operations through libvirt.

Holds the state of one machine; the other modules do the work.
"""

from __future__ import annotations

import os
import uuid
from dataclasses import replace
from pathlib import Path

from vc_core.driver_kit import HostProcess
from vc_core.spec import (
    Capability,
    Channel,
    ChannelKind,
    Checkpoint,
    Drive,
    DriverState,
    Finding,
    Guest,
    GuestDriver,
    HostPci,
    HypervisorSpec,
    Pluggable,
    Plugged,
    PodRef,
    Share,
    VmSize,
    VmSpec,
    VmStats,
    VmStatus,
    hookimpl,
)
from vc_libvirt import (
    accelerator,
    checkpoint,
    device_xml,
    exit_reason,
    hotplug,
    lost_domains,
    sizing,
)
from vc_libvirt.checkpoint import Manifest
from vc_libvirt.connection import Connection, connection
from vc_libvirt.doctor import diagnose
from vc_libvirt.domain_xml import Domain, Folder, domain, text
from vc_libvirt.driver_state import MachineState
from vc_libvirt.errors import LibvirtError
from vc_libvirt.options import LibvirtOptions
from vc_libvirt.running_machine import RunningMachine

_CONSOLE = "console"
_SHORT = 8  # of a uuid: pods of two stores may have the same name
_LOST_S = 10.0


class LibvirtHypervisor(HypervisorSpec):
    """The plugin `libvirt`."""

    options_type = LibvirtOptions

    def __init__(self, options: LibvirtOptions) -> None:
        self._options = options
        self._state = MachineState()
        self._is_fresh = True  # has neither made nor taken over a machine
        self._domain: Domain | None = None
        self._origin: Checkpoint | None = None
        self._restored_devices: dict[str, Share | Drive] = {}

    @hookimpl
    async def vm_capabilities(self, pod: PodRef) -> frozenset[Capability]:
        able = {Capability.UNIX_CHANNEL, Capability.PAUSE}
        if not self._options.is_mock:
            able |= {Capability.SHARE, Capability.DRIVE_PLUG, Capability.PCI_PLUG}
            able |= {Capability.RESIZE, Capability.SNAPSHOT}
        return frozenset(able)

    # --- life -------------------------------------------------------------------------------------

    @hookimpl
    async def vm_create(self, pod: PodRef, spec: VmSpec) -> None:
        self._is_fresh = False
        for file in (spec.guest.kernel, spec.guest.initrd):
            if not os.access(file, os.R_OK):
                raise LibvirtError(
                    f"the guest's {file} is missing or unreadable; run 'vc guest build'"
                )
        self._forget_files(pod)
        (pod.run_dir / _CONSOLE).unlink(missing_ok=True)  # of the boot before
        wanted = await self._wanted(pod, spec)
        if spec.origin is not None:
            chosen = checkpoint.read(spec.origin)[0].kind
        else:
            chosen = await accelerator.kind(self._connection, self._options, wanted, spec.guest)
        self._domain, self._origin = replace(wanted, kind=chosen), spec.origin
        known = ((one.plugged.id, one.device) for one in spec.restored_devices)
        self._restored_devices = {
            device_xml.alias_of(name): device
            for name, device in known
            if isinstance(device, Share | Drive)
        }
        self._state = MachineState(
            wanted.uuid,
            wanted.name,
            chosen,
            is_launched=True,
            shares=tuple(share.tag for share in spec.shares),
            vcpus=spec.vcpus,
            memory_mib=spec.memory_mib,
        )

    @hookimpl
    async def vm_start(self, pod: PodRef) -> None:
        if self._domain is None:
            raise LibvirtError("the machine was not created")
        try:
            if self._origin is None:
                xml = text(domain(self._domain))
                await self._connection.call(lambda handle: handle.createXML(xml, 0) and None)
            else:
                await self._go_on(pod, self._origin, self._domain)
            self._state = replace(self._state, process=HostProcess.find("-uuid", self._state.uuid))
        except BaseException:
            await self._end()
            raise

    @hookimpl
    async def vm_status(self, pod: PodRef) -> VmStatus:
        return await self._running.status()

    @hookimpl
    async def vm_wait(self, pod: PodRef) -> VmStatus:
        await self._running.ended()
        return await self._running.status()

    @hookimpl
    async def vm_stop(self, pod: PodRef, grace_s: float) -> VmStatus:
        machine = self._running
        if machine.process is not None and not await machine.process.ended_within(grace_s):
            await machine.end()
        return await machine.status()

    @hookimpl
    async def vm_destroy(self, pod: PodRef) -> None:
        await self._end()
        if self._is_fresh:  # the machine's record may be lost
            await lost_domains.end(self._connection, pod.id, pod.run_dir / _CONSOLE, _LOST_S)
        self._forget_files(pod)
        self._state = MachineState()
        self._domain = None

    @hookimpl
    async def vm_pause(self, pod: PodRef) -> None:
        await self._running.ask(lambda domain: domain.suspend())

    @hookimpl
    async def vm_resume(self, pod: PodRef) -> None:
        await self._running.ask(lambda domain: domain.resume())

    # --- devices and channels ---------------------------------------------------------------------

    @hookimpl
    async def vm_plug(self, pod: PodRef, device: Pluggable) -> Plugged:
        if not isinstance(device, Drive | HostPci):
            raise LibvirtError(
                "libvirt plugs disks and PCI devices of the host into running machines, nothing else"
            )
        return await hotplug.plug(self._running, device, self._options.root_ports)

    @hookimpl
    async def vm_unplug(self, pod: PodRef, plugged: Plugged) -> None:
        if self._running.is_alive():
            await hotplug.unplug(self._running, plugged)

    @hookimpl
    async def vm_resize(self, pod: PodRef, size: VmSize) -> VmSize:
        start = VmSize(self._state.vcpus, self._state.memory_mib)
        return await sizing.resize(
            self._running, start, size, can_lose_vcpus=self._state.kind == "kvm"
        )

    @hookimpl
    async def vm_checkpoint(self, pod: PodRef, into: Checkpoint) -> None:
        state = self._state
        manifest = Manifest(state.vcpus, state.memory_mib, state.kind)
        await checkpoint.save(self._running, into, manifest)

    @hookimpl
    async def vm_shares(self, pod: PodRef) -> tuple[Plugged, ...]:
        return tuple(
            Plugged(f"share-{tag}", GuestDriver.NINE_P, tag, is_fixed=True)
            for tag in self._state.shares
        )

    @hookimpl
    async def vm_open_channel(self, pod: PodRef, name: str) -> Channel:
        await self._running.live_process()
        alias, path = await hotplug.open_channel(self._running, pod.run_dir, name)
        return Channel(alias, ChannelKind.UNIX, str(path))

    @hookimpl
    async def vm_close_channel(self, pod: PodRef, channel: Channel) -> None:
        if not self._running.is_alive():
            Path(channel.address).unlink(missing_ok=True)
            return
        await hotplug.close_channel(self._running, channel.id, Path(channel.address))

    # --- information -------------------------------------------------------------------------------

    @hookimpl
    async def vm_console(self, pod: PodRef, tail_bytes: int) -> bytes:
        return exit_reason.tail(pod.run_dir / _CONSOLE, tail_bytes)

    @hookimpl
    async def vm_stats(self, pod: PodRef) -> VmStats:
        process = await self._running.live_process()
        return VmStats(*process.usage(), *process.transfers())

    @hookimpl
    async def vm_diagnose(self, guests: tuple[Guest, ...]) -> tuple[Finding, ...]:
        guest = guests[0] if guests else Guest("", Path("/"), Path("/"), (), ())
        pod = PodRef("sample", Path("/tmp"))
        try:
            sample = await self._wanted(pod, VmSpec(guest, 1, 256))
        except LibvirtError:  # the same is told by what follows
            sample = self._domain_of(pod, VmSpec(guest, 1, 256), "")
        return await diagnose(self._connection, self._options, guests, sample)

    @hookimpl
    async def vm_export_state(self, pod: PodRef) -> DriverState:
        return DriverState(self._state.to_json())

    @hookimpl
    async def vm_adopt(self, pod: PodRef, state: DriverState) -> None:
        self._is_fresh = False
        self._state = MachineState.from_json(state.json)

    # --- internals ---------------------------------------------------------------------------------

    @property
    def _connection(self) -> Connection:
        return connection(self._options.uri)

    @property
    def _running(self) -> RunningMachine:
        log = self._options.logs / f"{self._state.name}.log"
        limit_s = self._options.unplug_timeout_s
        return RunningMachine(self._connection, self._state.uuid, log, self._process(), limit_s)

    def _process(self) -> HostProcess | None:
        """The machine's process. Searched for when its starter was killed before it noted the pid."""
        if self._state.process is None and self._state.is_launched:
            self._state = replace(self._state, process=HostProcess.find("-uuid", self._state.uuid))
        return self._state.process

    async def _end(self) -> None:
        if self._state.is_launched:
            await self._running.end()

    async def _wanted(self, pod: PodRef, spec: VmSpec) -> Domain:
        return self._domain_of(
            pod,
            spec,
            str(spec.binary or await accelerator.emulator(self._connection, self._options)),
        )

    def _domain_of(self, pod: PodRef, spec: VmSpec, program: str) -> Domain:
        options, name = self._options, str(uuid.uuid4())
        for count, most, unit, key in (
            (spec.vcpus, options.max_vcpus, "vCPUs", "max_vcpus"),
            (spec.memory_mib, options.max_memory_mib, "MiB of memory", "max_memory_mib"),
        ):
            if count > most:
                told = f"{count} {unit} were asked for and {most} is the most; raise hypervisor.libvirt.{key}"
                raise LibvirtError(told)
        return Domain(
            name=f"vc-{pod.id}-{name[:_SHORT]}",
            uuid=name,
            pod=pod.id,
            kind=accelerator.EMULATED,
            emulator=program,
            machine=options.machine,
            cpu=options.cpu,
            vcpus=spec.vcpus,
            max_vcpus=options.max_vcpus,
            memory_mib=spec.memory_mib,
            max_memory_mib=options.max_memory_mib,
            memory_slots=options.memory_slots,
            kernel=spec.guest.kernel,
            initrd=spec.guest.initrd,
            parameters=spec.guest.parameters,
            console=pod.run_dir / _CONSOLE,
            shares=tuple(Folder(share.tag, share.path, share.read_only) for share in spec.shares),
            root_ports=options.root_ports,
            free_page_reporting=options.free_page_reporting,
            # The pod's files are this user's and closed to others. A libvirtd of the user's own has
            # no choice anyway.
            owner=None if options.is_session else (os.geteuid(), os.getegid()),
        )

    async def _go_on(self, pod: PodRef, origin: Checkpoint, wanted: Domain) -> None:
        _, image = checkpoint.read(origin)
        xml = checkpoint.another(image, wanted, self._restored_devices)
        await checkpoint.restore(self._connection, image, xml, pod.run_dir)
        for alias in checkpoint.left_channels(xml):
            await self._running.detach(alias)

    @staticmethod
    def _forget_files(pod: PodRef) -> None:
        for path in pod.run_dir.glob("*.sock"):
            path.unlink(missing_ok=True)
