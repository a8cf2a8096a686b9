"""The hypervisor operations through libvirt.

Holds the state of one machine; the other modules do the work.
"""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from vc_core.driver_kit import check_guest_files, decode_record, encode_record, resize
from vc_core.spec import (
    Capability,
    Channel,
    ChannelKind,
    Checkpoint,
    Drive,
    DriverState,
    Finding,
    Guest,
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
    channels,
    checkpoint,
    device_xml,
    domain_xml,
    exit_reason,
    hotplug,
    lost_domains,
    sizing,
)
from vc_libvirt.checkpoint import Manifest
from vc_libvirt.connection import Connection, connection
from vc_libvirt.doctor import diagnose
from vc_libvirt.domain_xml import Domain, text
from vc_libvirt.driver_state import SCHEMA, LibvirtState
from vc_libvirt.errors import LibvirtError
from vc_libvirt.machine_config import console_path, machine_of
from vc_libvirt.options import LibvirtOptions
from vc_libvirt.running_machine import RunningMachine

_LOST_S = 10.0


class LibvirtHypervisor(HypervisorSpec):
    """The plugin `libvirt`."""

    options_type = LibvirtOptions

    def __init__(self, options: LibvirtOptions) -> None:
        self._options = options
        self._state = LibvirtState()
        self._is_fresh = True  # has neither created nor adopted a machine
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

    # --- life cycle -------------------------------------------------------------------------------

    @hookimpl
    async def vm_create(self, pod: PodRef, spec: VmSpec) -> None:
        self._is_fresh = False
        check_guest_files(spec.guest)
        channels.forget(pod.run_dir)
        console_path(pod.run_dir).unlink(missing_ok=True)  # of the boot before
        domain = await self._domain_of(pod, spec)
        if spec.origin is not None:
            chosen = checkpoint.read(spec.origin)[0].accelerator
        else:
            chosen = await accelerator.choose(self._connection, self._options, domain, spec.guest)
        self._domain, self._origin = replace(domain, accelerator=chosen), spec.origin
        self._restored_devices = {
            device_xml.alias_of(restored.plugged.id): restored.device
            for restored in spec.restored_devices
            if isinstance(restored.device, Share | Drive)
        }
        self._state = LibvirtState(
            uuid=domain.uuid,
            accelerator=chosen,
            is_launched=True,
            shares=tuple(share.tag for share in spec.shares),
            vcpus=spec.vcpus,
            memory_mib=spec.memory_mib,
            name=domain.name,
        )

    @hookimpl
    async def vm_start(self, pod: PodRef) -> None:
        if self._domain is None:
            raise LibvirtError("the machine was not created")
        try:
            if self._origin is None:
                xml = text(domain_xml.domain(self._domain))
                await self._connection.call(lambda handle: handle.createXML(xml, 0) and None)
            else:
                await self._go_on(pod, self._origin, self._domain)
            self._state = self._state.with_process("-uuid", self._state.uuid)
        except BaseException:
            await self._end()
            raise

    @hookimpl
    async def vm_status(self, pod: PodRef) -> VmStatus:
        running = self._running
        status = await running.status()
        if not status.pid:
            return status
        confinement = await running.confinement(status.pid)
        return VmStatus(phase=status.phase, pid=status.pid, confinement=confinement)

    @hookimpl
    async def vm_wait(self, pod: PodRef) -> VmStatus:
        return await self._running.wait()

    @hookimpl
    async def vm_stop(self, pod: PodRef, grace_s: float) -> VmStatus:
        return await self._running.stop(grace_s)

    @hookimpl
    async def vm_destroy(self, pod: PodRef) -> None:
        await self._end()
        if self._is_fresh:  # the machine's record may be lost
            await lost_domains.end(self._connection, pod.id, console_path(pod.run_dir), _LOST_S)
        channels.forget(pod.run_dir)
        self._state = LibvirtState()
        self._domain = None

    @hookimpl
    async def vm_pause(self, pod: PodRef) -> None:
        await self._running.ask(lambda domain: domain.suspend())

    @hookimpl
    async def vm_resume(self, pod: PodRef) -> None:
        await self._running.ask(_resume)

    # --- devices and channels ---------------------------------------------------------------------

    @hookimpl
    async def vm_plug(self, pod: PodRef, device: Pluggable) -> Plugged:
        if not isinstance(device, Drive | HostPci):
            raise LibvirtError(
                "libvirt can plug only disks and PCI devices of the host into a running machine"
            )
        return await hotplug.plug(self._running, device, self._options.root_ports)

    @hookimpl
    async def vm_unplug(self, pod: PodRef, plugged: Plugged) -> None:
        if self._running.is_alive():
            await hotplug.unplug(self._running, plugged)

    @hookimpl
    async def vm_resize(self, pod: PodRef, size: VmSize) -> VmSize:
        machine, state = sizing.LibvirtSize(self._running), self._state
        return await resize(machine, state.start_size, size, state.can_unplug_vcpus)

    @hookimpl
    async def vm_checkpoint(self, pod: PodRef, into: Checkpoint) -> None:
        state = self._state
        manifest = Manifest(state.vcpus, state.memory_mib, state.accelerator)
        await checkpoint.save(self._running, into, manifest)

    @hookimpl
    async def vm_shares(self, pod: PodRef) -> tuple[Plugged, ...]:
        return self._state.fixed_shares()

    @hookimpl
    async def vm_open_channel(self, pod: PodRef, name: str) -> Channel:
        await self._running.live_process()
        alias, path = await channels.add(self._running, pod.run_dir, name)
        return Channel(id=alias, kind=ChannelKind.UNIX, address=str(path))

    @hookimpl
    async def vm_close_channel(self, pod: PodRef, channel: Channel) -> None:
        if not self._running.is_alive():
            Path(channel.address).unlink(missing_ok=True)
            return
        await channels.remove(self._running, channel.id, Path(channel.address))

    # --- information ------------------------------------------------------------------------------

    @hookimpl
    async def vm_console(self, pod: PodRef, tail_bytes: int) -> bytes:
        return exit_reason.tail(console_path(pod.run_dir), tail_bytes)

    @hookimpl
    async def vm_stats(self, pod: PodRef) -> VmStats:
        return await self._running.stats()

    @hookimpl
    async def vm_diagnose(self, guests: tuple[Guest, ...]) -> tuple[Finding, ...]:
        guest = (
            guests[0]
            if guests
            else Guest(
                id="", kernel=Path("/"), initrd=Path("/"), parameters=(), proof_parameters=()
            )
        )
        with tempfile.TemporaryDirectory(prefix="vc-doctor-") as folder:
            pod = PodRef(id="sample", run_dir=Path(folder))
            spec = VmSpec(guest=guest, vcpus=1, memory_mib=256)
            try:
                sample = await self._domain_of(pod, spec)
            except LibvirtError:  # the diagnosis gets the same error and reports it
                sample = machine_of(self._options, pod, spec, "")
            return await diagnose(self._connection, self._options, guests, sample)

    @hookimpl
    async def vm_export_state(self, pod: PodRef) -> DriverState:
        return DriverState(json=encode_record(self._state, SCHEMA))

    @hookimpl
    async def vm_adopt(self, pod: PodRef, state: DriverState) -> None:
        self._is_fresh = False
        self._state = decode_record(state.json, LibvirtState, SCHEMA, "the machine's state")

    # --- internals --------------------------------------------------------------------------------

    @property
    def _connection(self) -> Connection:
        return connection(self._options.uri)

    @property
    def _running(self) -> RunningMachine:
        self._state = self._state.with_process("-uuid", self._state.uuid)
        return RunningMachine(
            self._state.process,
            self._connection,
            self._state.uuid,
            self._options.logs / f"{self._state.name}.log",
            self._options.unplug_timeout_s,
        )

    async def _end(self) -> None:
        if self._state.is_launched:
            await self._running.end()

    async def _domain_of(self, pod: PodRef, spec: VmSpec) -> Domain:
        emulator = spec.binary or await accelerator.emulator(self._connection, self._options)
        return machine_of(self._options, pod, spec, str(emulator))

    async def _go_on(self, pod: PodRef, origin: Checkpoint, domain: Domain) -> None:
        _, image = checkpoint.read(origin)
        xml = checkpoint.another(image, domain, self._restored_devices)
        await checkpoint.restore(self._connection, image, xml, pod.run_dir)
        for alias in checkpoint.left_channels(xml):
            await self._running.detach(alias)


def _resume(domain: Any) -> None:
    """Resumes a domain; libvirt may do so itself at the end of a save whose caller was killed."""
    import libvirt

    try:
        domain.resume()
    except libvirt.libvirtError:
        if domain.state()[0] != libvirt.VIR_DOMAIN_RUNNING:
            raise
