"""Hypervisor operations without a machine."""

from __future__ import annotations

import asyncio
import os
from dataclasses import replace

from acme_hypervisor import cgroup, sandbox
from acme_hypervisor.options import AcmeOptions
from acme_hypervisor.sandbox import SCHEMA, Sandbox
from vc_core.driver_kit import HostProcess, decode_record, encode_record, find_program
from vc_core.spec import (
    Capability,
    Channel,
    ChannelKind,
    DriverState,
    Finding,
    Guest,
    GuestDriver,
    HypervisorError,
    HypervisorSpec,
    Plugged,
    PodRef,
    Verdict,
    VmPhase,
    VmSize,
    VmSpec,
    VmStats,
    VmStatus,
    hookimpl,
)

_HOST = "/run/vc/host"  # where the agent shows the folders of the host
_PACKAGES = {"unshare": "util-linux", "crun": "crun"}


class AcmeHypervisor(HypervisorSpec):
    """The plugin `acme`."""

    options_type = AcmeOptions

    def __init__(self, options: AcmeOptions) -> None:
        self._options = options
        self._sandbox = Sandbox()
        self._spec: VmSpec | None = None

    @hookimpl
    async def vm_capabilities(self, pod: PodRef) -> frozenset[Capability]:
        return frozenset(
            {Capability.UNIX_CHANNEL, Capability.SHARE, Capability.PAUSE, Capability.RESIZE}
        )

    @hookimpl
    async def vm_create(self, pod: PodRef, spec: VmSpec) -> None:
        if os.geteuid() != 0:
            raise HypervisorError(
                "a sandbox is made by root; use a hypervisor with machines without"
            )
        if spec.guest.program is None or not os.access(spec.guest.program, os.X_OK):
            raise HypervisorError(
                f"the guest's agent {spec.guest.program} is missing; run 'vc guest build'"
            )
        for program in (self._options.unshare, "crun"):
            if find_program(program) is None:
                raise HypervisorError(
                    f"{program} is not there; install the package {_PACKAGES.get(program, program)}"
                )
        group = cgroup.hierarchy() / f"vc-{pod.id}-{os.urandom(4).hex()}"
        tags = tuple(share.tag for share in spec.shares)
        self._sandbox, self._spec = Sandbox(str(pod.run_dir), str(group), tags), spec
        self._sandbox.log.unlink(missing_ok=True)

    @hookimpl
    async def vm_start(self, pod: PodRef) -> None:
        if self._spec is None:
            raise HypervisorError("the sandbox was not created")
        try:
            self._sandbox.control.make(
                VmSize(vcpus=self._spec.vcpus, memory_mib=self._spec.memory_mib)
            )
            process = await asyncio.to_thread(
                sandbox.start, self._sandbox, pod, self._spec, self._options
            )
            self._sandbox = replace(self._sandbox, process=process)
        except BaseException:
            await self._end()
            raise

    @hookimpl
    async def vm_status(self, pod: PodRef) -> VmStatus:
        found = self._process()
        if found is None:
            return VmStatus(phase=VmPhase.ABSENT)
        if not found.is_alive():
            return VmStatus(phase=VmPhase.ENDED, pid=0, reason=self._reason())
        is_frozen = self._sandbox.control.is_frozen()
        return VmStatus(phase=VmPhase.PAUSED if is_frozen else VmPhase.RUNNING, pid=found.pid)

    @hookimpl
    async def vm_wait(self, pod: PodRef) -> VmStatus:
        found = self._process()
        if found is not None:
            await found.ended()
        return await self.vm_status(pod)

    @hookimpl
    async def vm_stop(self, pod: PodRef, grace_s: float) -> VmStatus:
        found = self._process()
        if found is not None and (grace_s <= 0 or not await found.ended_within(grace_s)):
            await found.kill(0)
        return await self.vm_status(pod)

    @hookimpl
    async def vm_destroy(self, pod: PodRef) -> None:
        if not self._sandbox.folder:  # nothing was taken over: the sandbox's record may be lost
            self._sandbox = sandbox.lost(pod)
        await self._end()
        if self._sandbox.folder:
            self._sandbox.socket.unlink(missing_ok=True)
        self._sandbox = Sandbox()

    @hookimpl
    async def vm_pause(self, pod: PodRef) -> None:
        self._alive()
        await asyncio.to_thread(self._sandbox.control.freeze, True)

    @hookimpl
    async def vm_resume(self, pod: PodRef) -> None:
        self._alive()
        await asyncio.to_thread(self._sandbox.control.freeze, False)

    @hookimpl
    async def vm_resize(self, pod: PodRef, size: VmSize) -> VmSize:
        self._alive()
        host = VmSize(
            vcpus=os.cpu_count() or 1,
            memory_mib=(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")) >> 20,
        )
        if size.vcpus > host.vcpus or size.memory_mib > host.memory_mib:
            raise HypervisorError(
                f"this host has {host.vcpus} processors and {host.memory_mib} MiB, not {size}"
            )
        self._sandbox.control.limit(size)
        return size

    @hookimpl
    async def vm_shares(self, pod: PodRef) -> tuple[Plugged, ...]:
        return tuple(
            Plugged(id=tag, driver=GuestDriver.BIND, address=f"{_HOST}/{tag}", is_fixed=True)
            for tag in self._sandbox.tags
        )

    @hookimpl
    async def vm_open_channel(self, pod: PodRef, name: str) -> Channel:
        self._alive()
        return Channel(id=name, kind=ChannelKind.UNIX, address=str(self._sandbox.socket))

    @hookimpl
    async def vm_close_channel(self, pod: PodRef, channel: Channel) -> None:
        """It ends with the connection: nothing was made for it."""

    @hookimpl
    async def vm_console(self, pod: PodRef, tail_bytes: int) -> bytes:
        log = Sandbox(str(pod.run_dir)).log
        return log.read_bytes()[-tail_bytes:] if log.exists() else b""

    @hookimpl
    async def vm_stats(self, pod: PodRef) -> VmStats:
        self._alive()
        control, resident = self._sandbox.control, 0
        for pid in control.processes():
            try:
                resident += HostProcess.of(pid).usage()[1]
            except (FileNotFoundError, ProcessLookupError):
                continue  # it has ended just now
        return VmStats(cpu_ns=control.cpu_ns(), resident_bytes=resident)

    @hookimpl
    async def vm_export_state(self, pod: PodRef) -> DriverState:
        return DriverState(json=encode_record(self._sandbox, SCHEMA))

    @hookimpl
    async def vm_adopt(self, pod: PodRef, state: DriverState) -> None:
        self._sandbox = decode_record(state.json, Sandbox, SCHEMA, "the sandbox's state")

    @hookimpl
    async def vm_diagnose(self, guests: tuple[Guest, ...]) -> tuple[Finding, ...]:
        try:
            found = (cgroup.hierarchy() / "cgroup.controllers").read_text().split()
        except HypervisorError as error:
            detail, _, remedy = str(error).partition(": ")
            return (
                Finding(subject="cgroup v2", verdict=Verdict.BAD, detail=detail, remedy=remedy),
            )
        missing = {"cpu", "memory", "pids"} - set(found)
        if missing:
            detail = (
                f"it has no controllers for {', '.join(sorted(missing))}: "
                "these limits cannot be kept"
            )
            return (
                Finding(
                    subject="cgroup v2",
                    verdict=Verdict.WARNING,
                    detail=detail,
                    remedy="boot with systemd.unified_cgroup_hierarchy=1",
                ),
            )
        return (
            Finding(
                subject="cgroup v2",
                verdict=Verdict.GOOD,
                detail="it has all controllers that limits need",
            ),
        )

    # --- inside -----------------------------------------------------------------------------------

    def _process(self) -> HostProcess | None:
        """The process of the sandbox, also if the process that started it was killed."""
        known = self._sandbox
        if known.process is None and known.folder:
            self._sandbox = replace(known, process=known.find())
        return self._sandbox.process

    def _alive(self) -> None:
        found = self._process()
        if found is None or not found.is_alive():
            raise HypervisorError(f"the sandbox has ended: {self._reason()}")

    def _reason(self) -> str:
        lines = self._sandbox.log.read_text().splitlines() if self._sandbox.log.exists() else []
        return lines[-1] if lines else "its processes ended, or were killed"

    async def _end(self) -> None:
        """Ends what runs and takes away what was made on the host."""
        found = self._process()
        if found is not None:
            await found.kill(0)
        if self._sandbox.cgroup:
            await asyncio.to_thread(self._sandbox.control.remove)
