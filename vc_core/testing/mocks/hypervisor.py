"""A hypervisor with mock machines."""

from __future__ import annotations

import asyncio
import json
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
    HypervisorError,
    HypervisorSpec,
    Nic,
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
from vc_core.testing.mocks.world import MockMachine, World

_OF_AGENTS = {
    Capability.TERMINAL,
    Capability.QUIESCE,
    Capability.DRIVE,
    Capability.ONLINE,
    Capability.STAND_IN,
}
_OF_LASTING = {
    Capability.SUPERVISE,
    Capability.FILES,
    Capability.LOG,
    Capability.START_HOOKS,
}
_OF_NETWORKS = {
    Capability.NETWORK,
    Capability.PORTS,
    Capability.NETWORK_POLICY,
    Capability.RATES,
}
ALL = frozenset(Capability) - {
    Capability.VSOCK_CHANNEL,
    *_OF_AGENTS,
    *_OF_LASTING,
    *_OF_NETWORKS,
}
MACHINE_STATE = "mock-state"
SAVED = "mock-machine"
ALIVE = (VmPhase.RUNNING, VmPhase.PAUSED)


class MockHypervisor(HypervisorSpec):
    """The mock hypervisor plugin; its machines are in the world."""

    world: World

    def __init__(self) -> None:
        self._launched = False
        self._spec: VmSpec | None = None

    @hookimpl
    async def vm_capabilities(self, pod: PodRef) -> frozenset[Capability]:
        return self.world.capabilities or ALL

    @hookimpl
    async def vm_create(self, pod: PodRef, spec: VmSpec) -> None:
        found = self.world.machines.get(pod.id)
        if found is not None and found.phase in ALIVE:
            raise HypervisorError("a machine of this pod is alive")
        if spec.guest.kernel.name == "missing":
            raise HypervisorError(f"the guest's {spec.guest.kernel} is missing")
        if spec.origin is not None and not (spec.origin.folder / MACHINE_STATE).exists():
            raise HypervisorError(f"no machine was saved in {spec.origin.folder}")
        self._spec, self._launched = spec, True

    @hookimpl
    async def vm_start(self, pod: PodRef) -> None:
        if self._spec is None:
            raise HypervisorError("the machine was not created")
        origin = self._spec.origin
        if origin is not None and (origin.folder / SAVED).exists():
            machine = self.world.saved[Path((origin.folder / SAVED).read_text())].copy()
            had = {*machine.shares, *machine.devices}
            brought = {share.tag for share in self._spec.shares} | {
                one.plugged.id for one in self._spec.restored_devices
            }
            if had != brought:
                raise HypervisorError(f"the saved machine had {had}, brought along were {brought}")
            for one in self._spec.restored_devices:
                if isinstance(one.device, Share):
                    machine.shares[one.plugged.id] = one.device
                else:
                    machine.devices[one.plugged.id] = one.device
        else:
            machine = MockMachine(
                is_hung=self.world.is_booting_for_ever, is_clone=origin is not None
            )
            self._plug_restored(machine, self._spec)
            machine.size = VmSize(vcpus=self._spec.vcpus, memory_mib=self._spec.memory_mib)
        machine.shares |= {share.tag: share for share in self._spec.shares}
        machine.fixed = tuple(share.tag for share in self._spec.shares)
        machine.run_dir = pod.run_dir
        self.world.machines[pod.id] = machine

    def _plug_restored(self, machine: MockMachine, spec: VmSpec) -> None:
        """Gives a clone of a template the interfaces that the template had."""
        if spec.origin is None:
            return
        had = (spec.origin.folder / MACHINE_STATE).read_text().split()
        brought = [one.plugged.id for one in spec.restored_devices]
        if had != brought:
            raise HypervisorError(f"the template had {had}, brought along were {brought}")
        for one in spec.restored_devices:
            if isinstance(one.device, Nic):
                machine.keep(one.device.id, one.device.descriptor)
                machine.devices[one.plugged.id] = one.device

    @hookimpl
    async def vm_status(self, pod: PodRef) -> VmStatus:
        found = self.world.machines.get(pod.id) if self._launched else None
        if found is None:
            return VmStatus(phase=VmPhase.ABSENT)
        return VmStatus(
            phase=found.phase, pid=found.pid if found.phase in ALIVE else 0, reason=found.reason
        )

    @hookimpl
    async def vm_wait(self, pod: PodRef) -> VmStatus:
        if pod.id in self.world.machines:
            await self.world.machines[pod.id].ended.wait()
        return await self.vm_status(pod)

    @hookimpl
    async def vm_stop(self, pod: PodRef, grace_s: float) -> VmStatus:
        if self._launched and pod.id in self.world.machines:
            self.world.machines[pod.id].end("ended")
        return await self.vm_status(pod)

    @hookimpl
    async def vm_destroy(self, pod: PodRef) -> None:
        found = self.world.machines.get(pod.id)
        if found is not None and (self._launched or found.run_dir == pod.run_dir):
            found.end("destroyed")
            self.world.machines = {
                name: one for name, one in self.world.machines.items() if one is not found
            }
        self._launched = False

    @hookimpl
    async def vm_pause(self, pod: PodRef) -> None:
        self._alive(pod).phase = VmPhase.PAUSED

    @hookimpl
    async def vm_resume(self, pod: PodRef) -> None:
        self._alive(pod).phase = VmPhase.RUNNING

    @hookimpl
    async def vm_plug(self, pod: PodRef, device: Pluggable) -> Plugged:
        machine = self._alive(pod)
        if isinstance(device, Nic):
            machine.keep(device.id, device.descriptor)
        if not isinstance(device, Share):
            machine.devices[device.id] = device
            return Plugged(
                id=device.id, driver=GuestDriver.SCSI, address=f"{len(machine.devices)}:0"
            )
        machine.shares[device.tag] = device
        return Plugged(id=device.tag, driver=GuestDriver.NINE_P, address=device.tag)

    @hookimpl
    async def vm_unplug(self, pod: PodRef, plugged: Plugged) -> None:
        self.world.machines[pod.id].shares.pop(plugged.id, None)
        self.world.machines[pod.id].devices.pop(plugged.id, None)

    @hookimpl
    async def vm_resize(self, pod: PodRef, size: VmSize) -> VmSize:
        machine = self._alive(pod)
        if size.vcpus > self.world.max_vcpus:
            raise HypervisorError(f"{size.vcpus} vCPUs are too many")
        machine.size = size
        return size

    @hookimpl
    async def vm_fingerprint(self, pod: PodRef, spec: VmSpec) -> str:
        if spec.vcpus > self.world.max_vcpus:
            raise HypervisorError(f"{spec.vcpus} vCPUs are too many")
        return f"{spec.guest.id} {spec.vcpus} {spec.memory_mib} {len(spec.shares)}"

    @hookimpl
    async def vm_checkpoint(self, pod: PodRef, into: Checkpoint) -> float | None:
        machine = self._alive(pod)
        is_template = self._spec is not None and self._spec.checkpoint_to is not None
        if is_template and not machine.is_ready_template:
            raise HypervisorError("a machine was saved whose guest was not readied")
        if not is_template:
            if machine.containers and not machine.is_let_go:
                raise HypervisorError("a share is mounted")
            self.world.saved[into.folder] = machine.copy()
            (into.folder / SAVED).write_text(str(into.folder))
        into.memory.write_text("memory")
        (into.folder / MACHINE_STATE).write_text("\n".join(machine.devices))
        return None if is_template else self.world.stood_still_s

    @hookimpl
    async def vm_shares(self, pod: PodRef) -> tuple[Plugged, ...]:
        return tuple(
            Plugged(id=tag, driver=GuestDriver.NINE_P, address=tag, is_fixed=True)
            for tag in self._alive(pod).fixed
        )

    @hookimpl
    async def vm_open_channel(self, pod: PodRef, name: str) -> Channel:
        machine = self._alive(pod)
        machine.channels.add(name)
        if machine.is_clone and self.world.dies_when_cloned:
            machine.is_hung = True
            asyncio.get_running_loop().call_soon(machine.end, "it died while loading")
        return Channel(id=name, kind=ChannelKind.UNIX, address=f"/mock/{name}")

    @hookimpl
    async def vm_close_channel(self, pod: PodRef, channel: Channel) -> None:
        if pod.id in self.world.machines:
            self.world.machines[pod.id].channels.discard(channel.id)

    @hookimpl
    async def vm_console(self, pod: PodRef, tail_bytes: int) -> bytes:
        return b"mock console\n"[-tail_bytes:]

    @hookimpl
    async def vm_stats(self, pod: PodRef) -> VmStats:
        self._alive(pod)
        return VmStats(cpu_ns=1, resident_bytes=2)

    @hookimpl
    async def vm_export_state(self, pod: PodRef) -> DriverState:
        return DriverState(json=json.dumps({"launched": self._launched, "name": pod.id}))

    @hookimpl
    async def vm_adopt(self, pod: PodRef, state: DriverState) -> None:
        told = json.loads(state.json)
        self._launched = told["launched"]
        if told["name"] != pod.id and told["name"] in self.world.machines:  # started for a pool
            self.world.machines[pod.id] = self.world.machines[told["name"]]

    @hookimpl
    async def vm_diagnose(self, guests: tuple[Guest, ...]) -> tuple[Finding, ...]:
        return ()

    def _alive(self, pod: PodRef) -> MockMachine:
        found = self.world.machines.get(pod.id)
        if found is None or found.phase not in ALIVE:
            raise HypervisorError("the machine has ended")
        return found


def mock_hypervisor(world: World) -> type[MockHypervisor]:
    """Returns a plugin for one world."""
    return type("MockHypervisor", (MockHypervisor,), {"world": world})
