"""Plugins as they were written against the contract's first version, 0.1 of 23 November 2026.

Once 0.1.0 is released, never edit them.

That had no resizing, no templates and no snapshots, and vm_diagnose got no guests. They leave out
what was optional then, and have one operation that the contract never had: tests retire it. See
docs/versioning.md.
"""

from __future__ import annotations

import json

from vc_core.spec import (
    Capability,
    Channel,
    ChannelKind,
    DriverState,
    GuestDriver,
    HypervisorError,
    Plugged,
    VmPhase,
    VmStats,
    VmStatus,
    hookimpl,
)

MACHINES: dict[str, OldMachine] = {}


class OldMachine:
    def __init__(self, tags):
        self.phase = VmPhase.RUNNING
        self.tags = tags
        self.channels = set()


class OldHypervisor:
    def __init__(self):
        self._tags = ()

    @hookimpl
    async def vm_capabilities(self):
        return frozenset({Capability.UNIX_CHANNEL, Capability.SHARE})

    @hookimpl
    async def vm_create(self, spec):
        self._tags = tuple(share.tag for share in spec.shares)

    @hookimpl
    async def vm_start(self, pod):
        MACHINES[pod.id] = OldMachine(self._tags)

    @hookimpl
    async def vm_status(self, pod):
        found = MACHINES.get(pod.id)
        return (
            VmStatus(phase=found.phase, pid=0, reason="")
            if found
            else VmStatus(phase=VmPhase.ABSENT)
        )

    @hookimpl
    async def vm_wait(self, pod):
        import asyncio

        await asyncio.Event().wait()

    @hookimpl
    async def vm_stop(self, pod):
        if pod.id in MACHINES:
            MACHINES[pod.id].phase = VmPhase.ENDED
        return await self.vm_status(pod)

    @hookimpl
    async def vm_destroy(self, pod):
        MACHINES.pop(pod.id, None)

    @hookimpl
    async def vm_shares(self, pod):
        return tuple(
            Plugged(id=tag, driver=GuestDriver.NINE_P, address=tag, is_fixed=True)
            for tag in MACHINES[pod.id].tags
        )

    @hookimpl
    async def vm_open_channel(self, pod, name):
        if pod.id not in MACHINES:
            raise HypervisorError("the machine has ended")
        MACHINES[pod.id].channels.add(name)
        return Channel(id=name, kind=ChannelKind.UNIX, address=f"/old/{name}")

    @hookimpl
    async def vm_close_channel(self, pod, channel):
        if pod.id in MACHINES:
            MACHINES[pod.id].channels.discard(channel.id)

    @hookimpl
    async def vm_console(self, tail_bytes):
        return b""

    @hookimpl
    async def vm_stats(self):
        return VmStats(cpu_ns=1, resident_bytes=1)

    @hookimpl
    async def vm_export_state(self):
        return DriverState(json=json.dumps(self._tags))

    @hookimpl
    async def vm_adopt(self, state):
        self._tags = tuple(json.loads(state.json))

    @hookimpl
    async def vm_diagnose(self):
        return ()

    @hookimpl
    async def vm_follow_console(self, pod):
        raise AssertionError("it is never called any more")


class OldObserver:
    def __init__(self):
        self.told = []

    @hookimpl
    async def pod_started(self, pod):
        TOLD.append(pod.id)


TOLD: list[str] = []
