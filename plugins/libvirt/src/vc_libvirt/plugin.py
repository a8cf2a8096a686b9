"""Hypervisor operations through libvirt.

Holds what is known of one machine; the work is done next door.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import uuid
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from vc_core.driver_kit import HostProcess
from vc_core.spec import (
    Capability,
    Channel,
    ChannelKind,
    Drive,
    DriverState,
    Finding,
    Frozen,
    Guest,
    HostPci,
    HypervisorError,
    HypervisorSpec,
    Pluggable,
    Plugged,
    PodRef,
    Share,
    VmPhase,
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
from vc_libvirt.checkpoint import Origin
from vc_libvirt.connection import Connection, connection
from vc_libvirt.doctor import diagnose
from vc_libvirt.domain_xml import Domain, Folder, domain, text
from vc_libvirt.driver_state import Saved
from vc_libvirt.errors import ConnectionLost, LibvirtFailure
from vc_libvirt.hotplug import Machine
from vc_libvirt.options import LibvirtOptions

P = ParamSpec("P")
T = TypeVar("T")

_CONSOLE = "console"
_NOTICE_S = 1.0
_SHORT = 8  # of a uuid: pods of two stores may have the same name
_KILL_S = 1.5  # QEMU ends within milliseconds when it can
_LOST_S = 10.0


def translated(function: Callable[P, Awaitable[T]]) -> Callable[P, Coroutine[Any, Any, T]]:
    """The heart's error becomes the contract's; libvirt's code is in its text and on its cause."""

    @functools.wraps(function)
    async def call(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return await function(*args, **kwargs)
        except LibvirtFailure as error:
            raise HypervisorError(str(error)) from error

    return call


class LibvirtHypervisor(HypervisorSpec):
    """The plugin `libvirt`."""

    options_type = LibvirtOptions

    def __init__(self, options: LibvirtOptions) -> None:
        self._options = options
        self._saved = Saved()
        self._is_fresh = True  # has neither made nor taken over a machine
        self._domain: Domain | None = None
        self._origin: Frozen | None = None
        self._carried: dict[str, Share | Drive] = {}

    @hookimpl
    async def vm_capabilities(self, pod: PodRef) -> frozenset[Capability]:
        able = {Capability.UNIX_CHANNEL, Capability.PAUSE}
        if not self._options.is_mock:
            able |= {Capability.SHARE, Capability.DRIVE_PLUG, Capability.PCI_PLUG}
            able |= {Capability.RESIZE, Capability.SNAPSHOT}
        return frozenset(able)

    # --- life --------------------------------------------------------------------------------------------------------

    @hookimpl
    @translated
    async def vm_create(self, pod: PodRef, spec: VmSpec) -> None:
        self._is_fresh = False
        for file in (spec.guest.kernel, spec.guest.initrd):
            if not os.access(file, os.R_OK):
                raise LibvirtFailure(
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
        known = ((one.plugged.id, one.device) for one in spec.carried)
        self._carried = {
            device_xml.alias_of(name): device
            for name, device in known
            if isinstance(device, Share | Drive)
        }
        self._saved = Saved(
            wanted.uuid,
            wanted.name,
            chosen,
            is_launched=True,
            shares=tuple(share.tag for share in spec.shares),
            vcpus=spec.vcpus,
            memory_mib=spec.memory_mib,
        )

    @hookimpl
    @translated
    async def vm_start(self, pod: PodRef) -> None:
        if self._domain is None:
            raise LibvirtFailure("the machine was not created")
        try:
            if self._origin is None:
                xml = text(domain(self._domain))
                await self._connection.call(lambda handle: handle.createXML(xml, 0) and None)
            else:
                await self._go_on(pod, self._origin, self._domain)
            self._saved = replace(self._saved, process=HostProcess.find("-uuid", self._saved.uuid))
        except BaseException:
            await self._end()
            raise

    @hookimpl
    @translated
    async def vm_status(self, pod: PodRef) -> VmStatus:
        found = self._process()
        if found is None:
            return VmStatus(VmPhase.ABSENT)
        if not found.is_alive():
            return VmStatus(VmPhase.ENDED, 0, await self._reason())
        return VmStatus(await self._phase(), found.pid)

    @hookimpl
    @translated
    async def vm_wait(self, pod: PodRef) -> VmStatus:
        found = self._process()
        if found is not None:
            await found.ended()
        return await self.vm_status(pod)

    @hookimpl
    @translated
    async def vm_stop(self, pod: PodRef, grace_s: float) -> VmStatus:
        found = self._process()
        if found is not None and (grace_s <= 0 or not await found.ended_within(grace_s)):
            await self._end()
        return await self.vm_status(pod)

    @hookimpl
    @translated
    async def vm_destroy(self, pod: PodRef) -> None:
        await self._end()
        if self._is_fresh:  # the machine's record may be lost
            await lost_domains.end(self._connection, pod.id, pod.run_dir / _CONSOLE, _LOST_S)
        self._forget_files(pod)
        self._saved = Saved()
        self._domain = None

    @hookimpl
    @translated
    async def vm_pause(self, pod: PodRef) -> None:
        await self._machine.ask(lambda found: found.suspend())

    @hookimpl
    @translated
    async def vm_resume(self, pod: PodRef) -> None:
        await self._machine.ask(lambda found: found.resume())

    # --- devices and channels ----------------------------------------------------------------------------------------

    @hookimpl
    @translated
    async def vm_plug(self, pod: PodRef, device: Pluggable) -> Plugged:
        if not isinstance(device, Drive | HostPci):
            raise LibvirtFailure(
                "libvirt plugs disks and PCI devices of the host into running machines, nothing else"
            )
        return await hotplug.plug(self._machine, device, self._options.root_ports)

    @hookimpl
    @translated
    async def vm_unplug(self, pod: PodRef, plugged: Plugged) -> None:
        found = self._process()
        if found is not None and found.is_alive():
            await hotplug.unplug(self._machine, plugged)

    @hookimpl
    @translated
    async def vm_resize(self, pod: PodRef, size: VmSize) -> VmSize:
        start = VmSize(self._saved.vcpus, self._saved.memory_mib)
        return await sizing.resize(
            self._machine, start, size, can_lose_vcpus=self._saved.kind == "kvm"
        )

    @hookimpl
    @translated
    async def vm_freeze(self, pod: PodRef, into: Frozen) -> None:
        saved = self._saved
        await checkpoint.save(
            self._machine, into, Origin(saved.vcpus, saved.memory_mib, saved.kind)
        )

    @hookimpl
    async def vm_shares(self, pod: PodRef) -> tuple[Plugged, ...]:
        return tuple(
            Plugged(f"share-{tag}", "9p", tag, is_fixed=True) for tag in self._saved.shares
        )

    @hookimpl
    @translated
    async def vm_open_channel(self, pod: PodRef, name: str) -> Channel:
        await self._alive()
        alias, path = await hotplug.open_channel(self._machine, pod.run_dir, name)
        return Channel(alias, ChannelKind.UNIX, str(path))

    @hookimpl
    @translated
    async def vm_close_channel(self, pod: PodRef, channel: Channel) -> None:
        found = self._process()
        if found is None or not found.is_alive():
            Path(channel.address).unlink(missing_ok=True)
            return
        await hotplug.close_channel(self._machine, channel.id, Path(channel.address))

    # --- what is known -----------------------------------------------------------------------------------------------

    @hookimpl
    async def vm_console(self, pod: PodRef, tail_bytes: int) -> bytes:
        return exit_reason.tail(pod.run_dir / _CONSOLE, tail_bytes)

    @hookimpl
    @translated
    async def vm_stats(self, pod: PodRef) -> VmStats:
        process = await self._alive()
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
        guest = guests[0] if guests else Guest("", Path("/"), Path("/"), (), ())
        pod = PodRef("sample", Path("/tmp"))
        try:
            sample = await self._wanted(pod, VmSpec(guest, 1, 256))
        except LibvirtFailure:  # the same is told by what follows
            sample = self._domain_of(pod, VmSpec(guest, 1, 256), "")
        return await diagnose(self._connection, self._options, guests, sample)

    # --- inside ------------------------------------------------------------------------------------------------------

    @property
    def _connection(self) -> Connection:
        return connection(self._options.uri)

    @property
    def _machine(self) -> Machine:
        return Machine(self._connection, self._saved.uuid, self._options.unplug_timeout_s)

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
                raise LibvirtFailure(told)
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

    async def _go_on(self, pod: PodRef, origin: Frozen, wanted: Domain) -> None:
        _, image = checkpoint.read(origin)
        xml = checkpoint.another(image, wanted, self._carried)
        await checkpoint.restore(self._connection, image, xml, pod.run_dir)
        for alias in checkpoint.left_channels(xml):
            await self._machine.detach(alias)

    async def _phase(self) -> VmPhase:
        import libvirt

        try:
            state, _ = await self._machine.ask(lambda found: found.state())
        except LibvirtFailure as error:
            if error.code != libvirt.VIR_ERR_NO_DOMAIN:
                raise
            return VmPhase.ENDED  # its process is about to
        return VmPhase.PAUSED if state == libvirt.VIR_DOMAIN_PAUSED else VmPhase.RUNNING

    def _process(self) -> HostProcess | None:
        """The machine's process; looked for when whoever started it had no time to write it down."""
        if self._saved.process is None and self._saved.is_launched:
            self._saved = replace(self._saved, process=HostProcess.find("-uuid", self._saved.uuid))
        return self._saved.process

    async def _alive(self) -> HostProcess:
        found = self._process()
        if found is None or not found.is_alive():
            raise LibvirtFailure(f"the machine has ended: {await self._reason()}")
        return found

    async def _reason(self) -> str:
        """Why it has ended. libvirtd writes that down when it has noticed, which may be just now."""
        with (
            self._connection.listening(self._saved.uuid) as listener,
            contextlib.suppress(LibvirtFailure, TimeoutError),
        ):
            async with asyncio.timeout(_NOTICE_S):
                await self._machine.ask(lambda found: found.name())
                await listener.stopped()
        return exit_reason.reason(self._options.logs / f"{self._saved.name}.log")

    async def _end(self) -> None:
        """Ends the machine; without libvirtd's help where that is not there, or hangs because the machine does."""
        import libvirt

        if not self._saved.is_launched:
            return
        found = self._process()
        try:
            async with asyncio.timeout(_KILL_S):
                await self._machine.ask(lambda known: known.destroy())
        except (ConnectionLost, TimeoutError):
            if found is not None:
                await found.kill(0)
        except LibvirtFailure as error:
            if error.code != libvirt.VIR_ERR_NO_DOMAIN:
                raise
        if found is not None:
            await found.ended()

    @staticmethod
    def _forget_files(pod: PodRef) -> None:
        for path in pod.run_dir.glob("*.sock"):
            path.unlink(missing_ok=True)
