"""A hypervisor without machines: every channel leads to the socket at which a test plays
the guest.
"""

from __future__ import annotations

import asyncio
import json
import os
from dataclasses import dataclass, replace
from pathlib import Path

from vc_core.spec import (
    Capability,
    Channel,
    ChannelKind,
    Checkpoint,
    DriverState,
    Finding,
    Guest,
    GuestDriver,
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

_ABLE = {Capability.UNIX_CHANNEL, Capability.SHARE, Capability.SHARE_PLUG, Capability.DRIVE_PLUG}
_ABLE |= {Capability.PAUSE, Capability.RESIZE, Capability.SNAPSHOT}


@dataclass(frozen=True)
class HostileOptions:
    """Options of the table [hypervisor.hostile].

    Attributes:
        socket: at which the test listens.
        console: the file that is shown as the guest's console.
    """

    socket: Path
    console: Path = Path("/dev/null")


@dataclass(frozen=True)
class _State:
    is_running: bool = False
    is_paused: bool = False
    tags: tuple[str, ...] = ()
    plugged: int = 0


class HostileMachine(HypervisorSpec):
    """The plugin `hostile`."""

    options_type = HostileOptions

    def __init__(self, options: HostileOptions) -> None:
        self._options = options
        self._state = _State()

    @hookimpl
    async def vm_capabilities(self, pod: PodRef) -> frozenset[Capability]:
        return frozenset(_ABLE)

    @hookimpl
    async def vm_create(self, pod: PodRef, spec: VmSpec) -> None:
        self._state = _State(tags=tuple(share.tag for share in spec.shares))

    @hookimpl
    async def vm_start(self, pod: PodRef) -> None:
        self._state = replace(self._state, is_running=True)

    @hookimpl
    async def vm_status(self, pod: PodRef) -> VmStatus:
        if not self._state.is_running:
            return VmStatus(phase=VmPhase.ABSENT)
        return VmStatus(
            phase=VmPhase.PAUSED if self._state.is_paused else VmPhase.RUNNING, pid=os.getpid()
        )

    @hookimpl
    async def vm_wait(self, pod: PodRef) -> VmStatus:
        if self._state.is_running:
            await asyncio.Event().wait()  # a hostile guest does not end by itself
        return await self.vm_status(pod)

    @hookimpl
    async def vm_stop(self, pod: PodRef, grace_s: float) -> VmStatus:
        self._state = _State()
        return VmStatus(phase=VmPhase.ENDED, pid=0, reason="it was ended")

    @hookimpl
    async def vm_destroy(self, pod: PodRef) -> None:
        self._state = _State()

    @hookimpl
    async def vm_pause(self, pod: PodRef) -> None:
        self._state = replace(self._state, is_paused=True)

    @hookimpl
    async def vm_resume(self, pod: PodRef) -> None:
        self._state = replace(self._state, is_paused=False)

    @hookimpl
    async def vm_plug(self, pod: PodRef, device: Pluggable) -> Plugged:
        if isinstance(device, Share):
            return Plugged(id=device.tag, driver=GuestDriver.NINE_P, address=device.tag)
        self._state = replace(self._state, plugged=self._state.plugged + 1)
        return Plugged(id=device.id, driver=GuestDriver.SCSI, address=f"0:{self._state.plugged}")

    @hookimpl
    async def vm_unplug(self, pod: PodRef, plugged: Plugged) -> None:
        """There is nothing to unplug."""

    @hookimpl
    async def vm_resize(self, pod: PodRef, size: VmSize) -> VmSize:
        return size

    @hookimpl
    async def vm_shares(self, pod: PodRef) -> tuple[Plugged, ...]:
        return tuple(
            Plugged(id=tag, driver=GuestDriver.NINE_P, address=tag, is_fixed=True)
            for tag in self._state.tags
        )

    @hookimpl
    async def vm_checkpoint(self, pod: PodRef, into: Checkpoint) -> None:
        into.memory.write_text("memory")

    @hookimpl
    async def vm_open_channel(self, pod: PodRef, name: str) -> Channel:
        return Channel(id=name, kind=ChannelKind.UNIX, address=str(self._options.socket))

    @hookimpl
    async def vm_close_channel(self, pod: PodRef, channel: Channel) -> None:
        """Nothing was made for it."""

    @hookimpl
    async def vm_console(self, pod: PodRef, tail_bytes: int) -> bytes:
        return self._options.console.read_bytes()[-tail_bytes:]

    @hookimpl
    async def vm_stats(self, pod: PodRef) -> VmStats:
        return VmStats(cpu_ns=1, resident_bytes=2)

    @hookimpl
    async def vm_export_state(self, pod: PodRef) -> DriverState:
        return DriverState(json=json.dumps(vars(self._state)))

    @hookimpl
    async def vm_adopt(self, pod: PodRef, state: DriverState) -> None:
        known = json.loads(state.json)
        self._state = _State(**{**known, "tags": tuple(known["tags"])})

    @hookimpl
    async def vm_diagnose(self, guests: tuple[Guest, ...]) -> tuple[Finding, ...]:
        return ()
