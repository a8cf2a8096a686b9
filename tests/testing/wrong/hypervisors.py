"""Wrong hypervisors."""

from __future__ import annotations

import asyncio
import itertools
import json
import os

from tests.testing.wrong import Wrong, table
from vc_core.spec import (
    Capability,
    Channel,
    ChannelKind,
    DriverState,
    GuestDriver,
    HypervisorError,
    Plugged,
    VmPhase,
    VmSize,
    VmStats,
    VmStatus,
    hookimpl,
)
from vc_core.testing.mocks import MockHypervisor
from vc_core.testing.mocks.hypervisor import ALIVE, ALL

HYPERVISORS: Wrong = {}
breaks = table(HYPERVISORS)


def once(plugin: MockHypervisor, what: str) -> None:
    """Refuses to do a thing twice in one world."""
    if what in plugin.world.litter:
        raise HypervisorError(f"{what} was done before")
    plugin.world.litter.append(what)


@breaks("test_capabilities_stay")
class Moody(MockHypervisor):
    @hookimpl
    async def vm_capabilities(self, pod):
        return ALL if pod.id in self.world.machines else ALL - {Capability.PAUSE}


@breaks("test_a_created_machine_does_not_run")
class Eager(MockHypervisor):
    @hookimpl
    async def vm_create(self, pod, spec):
        await super().vm_create(pod, spec)
        await self.vm_start(pod)


@breaks("test_a_guest_that_is_not_there_is_refused")
class Trusting(MockHypervisor):
    @hookimpl
    async def vm_create(self, pod, spec):
        self._spec, self._launched = spec, True


@breaks("test_a_started_machine_is_found_by_others")
class Forgetful(MockHypervisor):
    @hookimpl
    async def vm_adopt(self, pod, state):
        self._launched = False


@breaks("test_the_truth_is_told_of_no_machine_and_of_a_dead_one")
class AlwaysEnded(MockHypervisor):
    @hookimpl
    async def vm_status(self, pod):
        found = await super().vm_status(pod)
        return found if found.phase in ALIVE else VmStatus(phase=VmPhase.ENDED)


@breaks("test_an_end_is_waited_for")
class Impatient(MockHypervisor):
    @hookimpl
    async def vm_wait(self, pod):
        return await self.vm_status(pod)


@breaks("test_a_stopped_machine_has_ended")
class Hopes(MockHypervisor):
    @hookimpl
    async def vm_stop(self, pod, grace_s):
        return await self.vm_status(pod)


@breaks("test_stopping_twice_is_no_error")
class StopsOnce(MockHypervisor):
    @hookimpl
    async def vm_stop(self, pod, grace_s):
        once(self, "stop")
        return await super().vm_stop(pod, grace_s)


@breaks("test_nothing_is_left_of_a_destroyed_machine")
class Leaves(MockHypervisor):
    @hookimpl
    async def vm_destroy(self, pod):
        await self.vm_stop(pod, 0)


@breaks("test_destroying_twice_is_no_error")
class DestroysOnce(MockHypervisor):
    @hookimpl
    async def vm_destroy(self, pod):
        once(self, "destroy")
        await super().vm_destroy(pod)


@breaks("test_a_machine_whose_record_is_lost_is_ended")
class KnowsOnlyItsOwn(MockHypervisor):
    @hookimpl
    async def vm_destroy(self, pod):
        if self._launched:
            await super().vm_destroy(pod)


@breaks("test_a_machine_pauses")
class NeverPauses(MockHypervisor):
    @hookimpl
    async def vm_pause(self, pod):
        self._alive(pod)


@breaks("test_a_paused_machine_goes_on")
class NeverResumes(MockHypervisor):
    @hookimpl
    async def vm_resume(self, pod):
        self._alive(pod)


@breaks("test_a_device_is_plugged_again")
class PlugsOnce(MockHypervisor):
    @hookimpl
    async def vm_plug(self, pod, device):
        if device.id in self._alive(pod).devices:
            raise HypervisorError("duplicate id")
        return await super().vm_plug(pod, device)


@breaks("test_a_tap_is_kept_until_the_machine_ends")
class KeepsNoCopy(MockHypervisor):
    @hookimpl
    async def vm_plug(self, pod, device):
        plugged = await super().vm_plug(pod, device)
        while self._alive(pod).descriptors:
            os.close(self._alive(pod).descriptors.popitem()[1])
        return plugged


@breaks("test_a_place_is_free_again")
class KeepsPlaces(MockHypervisor):
    numbers = itertools.count()

    @hookimpl
    async def vm_plug(self, pod, device):
        found = await super().vm_plug(pod, device)
        return Plugged(id=found.id, driver=found.driver, address=f"{next(self.numbers)}:0")


@breaks("test_unplugging_twice_is_no_error")
class UnplugsOnce(MockHypervisor):
    @hookimpl
    async def vm_unplug(self, pod, plugged):
        del self._alive(pod).devices[plugged.id]


@breaks("test_a_machine_grows")
class Promises(MockHypervisor):
    @hookimpl
    async def vm_resize(self, pod, size):
        return VmSize(vcpus=1, memory_mib=size.memory_mib)


@breaks("test_a_machine_that_cannot_grow_is_as_before")
class Clamps(MockHypervisor):
    @hookimpl
    async def vm_resize(self, pod, size):
        return await super().vm_resize(
            pod, VmSize(vcpus=min(size.vcpus, 4), memory_mib=min(size.memory_mib, 4096))
        )


@breaks("test_shares_are_told_in_order")
class TellsToItself(MockHypervisor):
    @hookimpl
    async def vm_shares(self, pod):
        return tuple(
            Plugged(id=tag, driver=GuestDriver.NINE_P, address=tag, is_fixed=True)
            for tag in sorted(self._alive(pod).fixed)[:1]
        )


@breaks("test_each_client_has_a_channel_of_its_own")
class OneForAll(MockHypervisor):
    @hookimpl
    async def vm_open_channel(self, pod, name):
        return Channel(id="one", kind=ChannelKind.UNIX, address="/mock/one")


@breaks("test_an_ended_machine_opens_no_channel")
class OpensAnyway(MockHypervisor):
    @hookimpl
    async def vm_open_channel(self, pod, name):
        return Channel(id=name, kind=ChannelKind.UNIX, address=f"/mock/{name}")


@breaks("test_closing_twice_is_no_error")
class ClosesOnce(MockHypervisor):
    @hookimpl
    async def vm_close_channel(self, pod, channel):
        self._alive(pod).channels.remove(channel.id)


@breaks("test_a_console_outlives_its_machine")
class Quiet(MockHypervisor):
    @hookimpl
    async def vm_console(self, pod, tail_bytes):
        self._alive(pod)
        return b"mock console\n"[-tail_bytes:]


@breaks("test_only_a_machine_that_is_there_uses_anything")
class CountsTheDead(MockHypervisor):
    @hookimpl
    async def vm_stats(self, pod):
        return VmStats(cpu_ns=1, resident_bytes=2)


@breaks("test_taking_over_does_not_touch")
class Revives(MockHypervisor):
    @hookimpl
    async def vm_adopt(self, pod, state):
        await super().vm_adopt(pod, state)
        self.world.machines[pod.id].phase = VmPhase.RUNNING


@breaks("test_a_state_that_cannot_be_read_is_refused")
class ReadsAnything(MockHypervisor):
    @hookimpl
    async def vm_adopt(self, pod, state):
        self._launched = "true" in state.json

    @hookimpl
    async def vm_export_state(self, pod):
        return DriverState(json="true" if self._launched else "")


@breaks("test_a_diagnosis_is_findings")
class Words(MockHypervisor):
    @hookimpl
    async def vm_diagnose(self, guests):
        return ("all is well",)


@breaks("test_a_fingerprint_tells_machines_apart")
class AllAlike(MockHypervisor):
    @hookimpl
    async def vm_fingerprint(self, pod, spec):
        return spec.guest.id


@breaks("test_a_saved_machine_goes_on")
class StaysPaused(MockHypervisor):
    @hookimpl
    async def vm_checkpoint(self, pod, into):
        await super().vm_checkpoint(pod, into)
        self._alive(pod).phase = VmPhase.PAUSED


@breaks("test_another_goes_on_from_a_saved_one")
class SavesNothing(MockHypervisor):
    @hookimpl
    async def vm_checkpoint(self, pod, into):
        await asyncio.sleep(0)


@breaks("test_what_is_exported_describes_the_machine")
class ExportsNothing(MockHypervisor):
    @hookimpl
    async def vm_export_state(self, pod):
        return DriverState(json=json.dumps({"launched": False, "name": pod.id}))
