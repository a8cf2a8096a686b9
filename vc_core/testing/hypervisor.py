"""The contract suite of hypervisor plugins. Declared capabilities select the tests."""

from __future__ import annotations

import asyncio

import pytest
from msgspec import structs

from vc_core.driver_kit import HostProcess
from vc_core.spec import (
    Capability,
    DriverState,
    Finding,
    HypervisorError,
    PodRef,
    VmPhase,
    VmSize,
    VmSpec,
)
from vc_core.testing.machines import GONE, HypervisorSubject
from vc_core.testing.rules import fails_with, rule, time_limit
from vc_core.testing.taps import tap

_TOO_LARGE = VmSize(vcpus=4096, memory_mib=1 << 30)


class HypervisorContract:
    """All rules of hypervisors. Subclass it and override the fixture `subject`."""

    @pytest.fixture
    def subject(self) -> HypervisorSubject:
        """The plugin under test, provided by its author."""
        raise NotImplementedError("give a fixture `subject` that returns a HypervisorSubject")

    # --- life cycle -------------------------------------------------------------------------------

    @rule("vm_capabilities", "Must not need a running machine, and answers the same each time.")
    async def test_capabilities_stay(self, subject: HypervisorSubject) -> None:
        before = [await subject.driver().vm_capabilities(pod=subject.pod) for _ in range(2)]
        async with subject.machine() as driver:
            running = await driver.vm_capabilities(pod=subject.pod)
        assert before[0] == before[1] == running, (
            f"it declared {sorted(before[0])}, then {sorted(running)}"
        )

    @rule(
        "vm_create",
        "Checks that the machine can be made here and readies its runtime files; nothing runs yet.",
    )
    async def test_a_created_machine_does_not_run(self, subject: HypervisorSubject) -> None:
        driver = subject.driver()
        await driver.vm_create(pod=subject.pod, spec=subject.spec())
        try:
            phase = await subject.phase(driver)
            assert phase in GONE, f"it is {phase}"
        finally:
            await driver.vm_destroy(pod=subject.pod)

    @rule(
        "vm_create",
        "Raises HypervisorError when a binary is missing, the guest's files are unreadable",
    )
    async def test_a_guest_that_is_not_there_is_refused(self, subject: HypervisorSubject) -> None:
        missing = subject.folder / "missing"
        guest = structs.replace(subject.guest, kernel=missing, initrd=missing, program=missing)
        wanted = VmSpec(guest=guest, vcpus=1, memory_mib=subject.memory_mib)
        await fails_with(HypervisorError, subject.driver().vm_create(pod=subject.pod, spec=wanted))

    @rule(
        "vm_start",
        "Afterwards the phase is running and vm_export_state describes where the machine is.",
    )
    async def test_a_started_machine_is_found_by_others(self, subject: HypervisorSubject) -> None:
        async with subject.machine() as driver:
            here = await driver.vm_status(pod=subject.pod)
            other = await subject.other(driver)
            there = await other.vm_status(pod=subject.pod)
        assert here.phase is VmPhase.RUNNING, f"it is {here.phase}"
        assert there == here, f"another object finds {there}, not {here}"

    @rule("vm_status", "Raises nothing for an absent or dead machine.")
    async def test_the_truth_is_told_of_no_machine_and_of_a_dead_one(
        self, subject: HypervisorSubject
    ) -> None:
        phase = await subject.phase(subject.driver())
        assert phase is VmPhase.ABSENT, f"one that was never made is {phase}"
        async with subject.machine() as driver:
            await driver.vm_stop(pod=subject.pod, grace_s=0)
            phase = await subject.phase(driver)
            assert phase in GONE, f"a dead one is {phase}"

    @rule(
        "vm_wait", "Returns when the machine has ended; at once when it has, or was never started."
    )
    async def test_an_end_is_waited_for(self, subject: HypervisorSubject) -> None:
        async with time_limit():
            await subject.driver().vm_wait(pod=subject.pod)
        async with subject.machine() as driver:
            waiting = asyncio.create_task((await subject.other(driver)).vm_wait(pod=subject.pod))
            done, _ = await asyncio.wait([waiting], timeout=0.2)
            assert not done, "it returned while the machine ran"
            await driver.vm_stop(pod=subject.pod, grace_s=0)
            async with time_limit():
                found = await waiting
                await driver.vm_wait(pod=subject.pod)
        assert found.phase in GONE, f"it told {found.phase}"

    @rule("vm_stop", "The phase is ended or absent afterwards.")
    async def test_a_stopped_machine_has_ended(self, subject: HypervisorSubject) -> None:
        async with subject.machine() as driver:
            told = await driver.vm_stop(pod=subject.pod, grace_s=0)
            found = await driver.vm_status(pod=subject.pod)
        assert told.phase in GONE, f"it told {told.phase}"
        assert found.phase in GONE, f"it is {found.phase}"

    @rule("vm_stop", "May be called twice.")
    async def test_stopping_twice_is_no_error(self, subject: HypervisorSubject) -> None:
        await subject.driver().vm_stop(pod=subject.pod, grace_s=0)
        async with subject.machine() as driver:
            for _ in range(2):
                await driver.vm_stop(pod=subject.pod, grace_s=0)

    @rule(
        "vm_destroy",
        "Removes all that vm_create and vm_start left behind; kills the machine if it still runs.",
    )
    async def test_nothing_is_left_of_a_destroyed_machine(self, subject: HypervisorSubject) -> None:
        driver = subject.driver()
        await driver.vm_create(pod=subject.pod, spec=subject.spec())
        await driver.vm_start(pod=subject.pod)
        pid = (await driver.vm_status(pod=subject.pod)).pid
        process = HostProcess.of(pid) if pid else None
        await driver.vm_open_channel(pod=subject.pod, name="vc.agent.1")
        await driver.vm_destroy(pod=subject.pod)
        phase = await subject.phase(driver)
        assert phase is VmPhase.ABSENT, f"it is {phase}"
        assert process is None or not process.is_alive(), "its process lives"
        left = [path.name for path in subject.pod.run_dir.iterdir() if path.is_socket()]
        assert not left, f"sockets are left: {left}"

    @rule("vm_destroy", "May be called twice.")
    async def test_destroying_twice_is_no_error(self, subject: HypervisorSubject) -> None:
        async with subject.machine() as driver:
            for _ in range(2):
                await driver.vm_destroy(pod=subject.pod)
        await subject.driver().vm_destroy(pod=subject.pod)

    @rule(
        "vm_destroy",
        "An object that has neither made nor adopted a machine finds the pod's by itself",
    )
    async def test_a_machine_whose_record_is_lost_is_ended(
        self, subject: HypervisorSubject
    ) -> None:
        async with subject.machine() as driver:
            await subject.driver().vm_destroy(
                pod=PodRef(id=subject.pod.id, run_dir=subject.folder / "another")
            )
            phase = await subject.phase(driver)
            assert phase is VmPhase.RUNNING, f"that of another pod with the same id is {phase}"
            await subject.driver().vm_destroy(pod=subject.pod)
            phase = await subject.phase(driver)
            assert phase in GONE, f"it is {phase}"

    @rule("vm_pause", "The phase is running before and paused after.")
    async def test_a_machine_pauses(self, subject: HypervisorSubject) -> None:
        await subject.needs(Capability.PAUSE)
        async with subject.machine() as driver:
            await driver.vm_pause(pod=subject.pod)
            phases = [await subject.phase(one) for one in (driver, await subject.other(driver))]
        assert phases == [VmPhase.PAUSED] * 2, f"it is {phases}"

    @rule("vm_resume", "The phase is paused before and running after.")
    async def test_a_paused_machine_goes_on(self, subject: HypervisorSubject) -> None:
        await subject.needs(Capability.PAUSE)
        async with subject.machine() as driver:
            await driver.vm_pause(pod=subject.pod)
            await driver.vm_resume(pod=subject.pod)
            phase = await subject.phase(driver)
        assert phase is VmPhase.RUNNING, f"it is {phase}"

    # --- devices and size -------------------------------------------------------------------------

    @rule(
        "vm_plug", "Plugging the same device again replaces what an interrupted call left behind."
    )
    async def test_a_device_is_plugged_again(self, subject: HypervisorSubject) -> None:
        device = await subject.pluggable()
        async with subject.machine() as driver:
            await subject.guest_is_up(driver)
            first = await driver.vm_plug(pod=subject.pod, device=device)
            again = await (await subject.other(driver)).vm_plug(pod=subject.pod, device=device)
        assert first.id == again.id, f"its id was {first.id} and is {again.id}"

    @rule("vm_plug", "The driver keeps a copy of a Nic's descriptor until the machine ends.")
    async def test_a_tap_is_kept_until_the_machine_ends(self, subject: HypervisorSubject) -> None:
        await subject.needs(Capability.NIC)
        with tap() as found:
            async with subject.machine() as driver:
                await subject.guest_is_up(driver)
                await driver.vm_plug(pod=subject.pod, device=found.nic())
                found.close()
                is_kept = found.exists()
            assert is_kept and not found.exists(), f"kept: {is_kept}, at the end: {found.exists()}"

    @rule("vm_unplug", "Its slot and id are free afterwards.")
    async def test_a_place_is_free_again(self, subject: HypervisorSubject) -> None:
        device = await subject.pluggable()
        async with subject.machine() as driver:
            await subject.guest_is_up(driver)
            first = await driver.vm_plug(pod=subject.pod, device=device)
            await driver.vm_unplug(pod=subject.pod, plugged=first)
            again = await driver.vm_plug(pod=subject.pod, device=device)
        assert first == again, f"it was {first} and is {again}"

    @rule("vm_unplug", "A device that is not there is no error: may be called twice.")
    async def test_unplugging_twice_is_no_error(self, subject: HypervisorSubject) -> None:
        device = await subject.pluggable()
        async with subject.machine() as driver:
            await subject.guest_is_up(driver)
            plugged = await driver.vm_plug(pod=subject.pod, device=device)
            for _ in range(2):
                await driver.vm_unplug(pod=subject.pod, plugged=plugged)

    @rule("vm_resize", "Returns the size that the machine then has.")
    async def test_a_machine_grows(self, subject: HypervisorSubject) -> None:
        await subject.needs(Capability.RESIZE)
        wanted = VmSize(vcpus=2, memory_mib=subject.memory_mib + 128)
        async with subject.machine() as driver:
            await subject.guest_is_up(driver)
            told = await driver.vm_resize(pod=subject.pod, size=wanted)
            again = await driver.vm_resize(pod=subject.pod, size=wanted)
        assert told == again, f"it has {again}, and told {told}"
        assert told.vcpus == wanted.vcpus, f"it has {told.vcpus} vCPUs"
        assert told.memory_mib >= wanted.memory_mib, f"it has {told.memory_mib} MiB"

    @rule(
        "vm_resize",
        "Raises HypervisorError when the machine cannot grow so far; its size is unchanged then.",
    )
    async def test_a_machine_that_cannot_grow_is_as_before(
        self, subject: HypervisorSubject
    ) -> None:
        await subject.needs(Capability.RESIZE)
        wanted = VmSize(vcpus=1, memory_mib=subject.memory_mib)
        async with subject.machine() as driver:
            await subject.guest_is_up(driver)
            await fails_with(HypervisorError, driver.vm_resize(pod=subject.pod, size=_TOO_LARGE))
            found = await driver.vm_resize(pod=subject.pod, size=wanted)
        assert found == wanted, f"it has {found}"

    @rule("vm_shares", "Returns how the guest finds the shares of VmSpec, in their order.")
    async def test_shares_are_told_in_order(self, subject: HypervisorSubject) -> None:
        await subject.needs(Capability.SHARE)
        async with subject.machine("b", "a") as driver:
            found = await driver.vm_shares(pod=subject.pod)
            other = await (await subject.other(driver)).vm_shares(pod=subject.pod)
        assert len(found) == 2, f"it told {found}"
        assert len({one.address for one in found}) == 2, "two have one address"
        assert all(one.is_fixed for one in found), "one could be unplugged"
        assert other == found, f"another object tells {other}"

    # --- channels ---------------------------------------------------------------------------------

    @rule(
        "vm_open_channel",
        "Opens a new byte stream to the guest's agent, for one client of one process.",
    )
    async def test_each_client_has_a_channel_of_its_own(self, subject: HypervisorSubject) -> None:
        async with subject.machine() as driver:
            found = [
                await driver.vm_open_channel(pod=subject.pod, name=f"vc.agent.{one}")
                for one in range(2)
            ]
        assert len({one.id for one in found}) == 2, "two have one id"

    @rule("vm_open_channel", "Raises HypervisorError when the machine ends meanwhile.")
    async def test_an_ended_machine_opens_no_channel(self, subject: HypervisorSubject) -> None:
        async with subject.machine() as driver:
            await driver.vm_stop(pod=subject.pod, grace_s=0)
            await fails_with(
                HypervisorError, driver.vm_open_channel(pod=subject.pod, name="vc.agent.1")
            )

    @rule("vm_close_channel", "A channel or machine that is gone is no error: may be called twice.")
    async def test_closing_twice_is_no_error(self, subject: HypervisorSubject) -> None:
        async with subject.machine() as driver:
            channel = await driver.vm_open_channel(pod=subject.pod, name="vc.agent.1")
            for _ in range(2):
                await driver.vm_close_channel(pod=subject.pod, channel=channel)
            await driver.vm_stop(pod=subject.pod, grace_s=0)
            await driver.vm_close_channel(pod=subject.pod, channel=channel)

    # --- information ------------------------------------------------------------------------------

    @rule("vm_console", "Also works for a machine that has ended.")
    async def test_a_console_outlives_its_machine(self, subject: HypervisorSubject) -> None:
        async with subject.machine() as driver:
            before = await driver.vm_console(pod=subject.pod, tail_bytes=1 << 20)
            await driver.vm_stop(pod=subject.pod, grace_s=0)
            after = await driver.vm_console(pod=subject.pod, tail_bytes=1 << 20)
            tail = await driver.vm_console(pod=subject.pod, tail_bytes=4)
        assert after.startswith(before), f"it was {before!r}, and is {after!r} at the end"
        assert tail == after[-4:], f"the last 4 bytes are {tail!r}"

    @rule("vm_stats", "The phase is running or paused, else HypervisorError.")
    async def test_only_a_machine_that_is_there_uses_anything(
        self, subject: HypervisorSubject
    ) -> None:
        async with subject.machine() as driver:
            found = await driver.vm_stats(pod=subject.pod)
            assert found.cpu_ns > 0, f"it gave {found}"
            assert found.resident_bytes > 0, f"it gave {found}"
            await driver.vm_stop(pod=subject.pod, grace_s=0)
            await fails_with(HypervisorError, driver.vm_stats(pod=subject.pod))

    @rule("vm_export_state", "Returns the state that vm_adopt needs in another process.")
    async def test_what_is_exported_describes_the_machine(self, subject: HypervisorSubject) -> None:
        async with subject.machine() as driver:
            known = await driver.vm_status(pod=subject.pod)
            other = await subject.other(driver)
            adopted = await other.vm_status(pod=subject.pod)
        assert adopted == known, f"it is {known}, and after the take-over {adopted}"

    @rule("vm_adopt", "Must not touch the machine, which may have ended.")
    async def test_taking_over_does_not_touch(self, subject: HypervisorSubject) -> None:
        async with subject.machine() as driver:
            state = await driver.vm_export_state(pod=subject.pod)
            before = await driver.vm_status(pod=subject.pod)
            await (await subject.other(driver)).vm_export_state(pod=subject.pod)
            after = await driver.vm_status(pod=subject.pod)
            assert before == after, f"it was {before} and is {after}"
            await driver.vm_stop(pod=subject.pod, grace_s=0)
            late = subject.driver()
            await late.vm_adopt(pod=subject.pod, state=state)
            phase = await subject.phase(late)
        assert phase in GONE, f"of a dead one it tells {phase}"

    @rule("vm_adopt", "Raises HypervisorError for a state that this driver cannot read.")
    async def test_a_state_that_cannot_be_read_is_refused(self, subject: HypervisorSubject) -> None:
        for text in ("", "{", '{"schema": -1}'):
            state = DriverState(json=text)
            await fails_with(
                HypervisorError, subject.driver().vm_adopt(pod=subject.pod, state=state)
            )

    @rule(
        "vm_diagnose",
        "Reports whether this host is fit for the driver: binaries, acceleration, permissions.",
    )
    async def test_a_diagnosis_is_findings(self, subject: HypervisorSubject) -> None:
        found = await subject.driver().vm_diagnose(guests=())
        assert all(isinstance(one, Finding) for one in found), f"it gave {found}"

    # --- saved machines ---------------------------------------------------------------------------

    @rule(
        "vm_fingerprint",
        "Returns a text of all properties that a machine and its clones have in common.",
    )
    async def test_a_fingerprint_tells_machines_apart(self, subject: HypervisorSubject) -> None:
        await subject.needs(Capability.CLONE)
        one, larger = (
            subject.spec(),
            structs.replace(subject.spec(), memory_mib=subject.memory_mib * 2),
        )
        told = [
            await subject.driver().vm_fingerprint(pod=subject.pod, spec=spec)
            for spec in (one, one, larger)
        ]
        assert told[0] == told[1], "the same machine has another one the second time"
        assert told[0] != told[2], "a larger one has the same"

    @rule("vm_checkpoint", "The phase is running or paused before, and the same again afterwards.")
    async def test_a_saved_machine_goes_on(self, subject: HypervisorSubject) -> None:
        await subject.needs(Capability.SNAPSHOT)
        async with subject.machine() as driver:
            await subject.guest_is_up(driver)
            await driver.vm_checkpoint(pod=subject.pod, into=subject.checkpoint())
            phase = await subject.phase(driver)
        assert phase is VmPhase.RUNNING, f"it is {phase}"

    @rule("vm_start", "A machine with an origin resumes from its saved state")
    async def test_another_goes_on_from_a_saved_one(self, subject: HypervisorSubject) -> None:
        await subject.needs(Capability.SNAPSHOT)
        into = subject.checkpoint()
        async with subject.machine() as driver:
            await subject.guest_is_up(driver)
            await driver.vm_checkpoint(pod=subject.pod, into=into)
        other = subject.driver()
        await other.vm_create(pod=subject.pod, spec=structs.replace(subject.spec(), origin=into))
        try:
            await other.vm_start(pod=subject.pod)
            async with time_limit():
                await other.vm_open_channel(pod=subject.pod, name="vc.agent.2")
            phase = await subject.phase(other)
        finally:
            await other.vm_destroy(pod=subject.pod)
        assert phase is VmPhase.RUNNING, f"it is {phase}"
