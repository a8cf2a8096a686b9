"""What drivers of machines that are processes share: accelerator, ids of channels, unplug, ends."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from vc_core.driver_kit import (
    Accelerator,
    ChannelId,
    HostProcess,
    KvmProof,
    StartedMachine,
    accelerator_finding,
    choose_accelerator,
    last_error,
    wait_for_release,
)
from vc_core.spec import HypervisorError, InvalidRequest, Verdict, VmPhase

OPTION = "hypervisor.tiny.accelerator"


async def works() -> KvmProof:
    return KvmProof.booted()


async def fails() -> KvmProof:
    return KvmProof.failed("no such instruction")


async def is_refused() -> KvmProof:
    raise InvalidRequest("others can write to /proofs; 'chmod 700 /proofs'")


@pytest.mark.parametrize(
    ("setting", "prove", "accelerator"),
    [
        (Accelerator.AUTO, works, Accelerator.KVM),
        (Accelerator.KVM, works, Accelerator.KVM),
        (Accelerator.AUTO, fails, Accelerator.TCG),
        (Accelerator.TCG, is_refused, Accelerator.TCG),
    ],
)
async def test_the_accelerator_is_the_best_that_works(setting, prove, accelerator):
    assert await choose_accelerator(setting, OPTION, prove) is accelerator


async def test_kvm_that_is_configured_and_does_not_work_is_an_error_with_the_option():
    with pytest.raises(HypervisorError, match=rf"no such instruction; set {OPTION} to auto"):
        await choose_accelerator(Accelerator.KVM, OPTION, fails)


@pytest.mark.parametrize(
    ("setting", "prove", "verdict", "detail"),
    [
        (Accelerator.AUTO, works, Verdict.GOOD, "KVM: a guest on KVM booted"),
        (Accelerator.AUTO, fails, Verdict.WARNING, "TCG, because a guest on KVM failed"),
        (Accelerator.KVM, fails, Verdict.BAD, "TCG, because a guest on KVM failed"),
        (Accelerator.TCG, is_refused, Verdict.WARNING, "TCG, as configured"),
        (Accelerator.AUTO, None, Verdict.WARNING, "there is no guest"),
        (Accelerator.AUTO, is_refused, Verdict.BAD, "others can write to /proofs"),
    ],
)
async def test_a_diagnosis_of_the_accelerator_is_a_finding(setting, prove, verdict, detail):
    finding = await accelerator_finding(setting, OPTION, prove)
    assert finding.verdict is verdict
    assert detail in finding.detail


def test_the_id_of_a_channel_names_its_owner(tmp_path):
    channel_id = ChannelId.of_name("vc.agent.a1b2")
    assert channel_id == ChannelId(HostProcess.this(), "a1b2")
    assert ChannelId.parse(str(channel_id)) == channel_id
    assert channel_id.socket(tmp_path) == tmp_path / "a1b2.sock"
    for other in ("first", "channel-1-2", "channel-1-2-../x", f"x{channel_id}", "channel-a-2-x"):
        assert ChannelId.parse(other) is None


async def answer(is_released: bool) -> bool:
    return is_released


async def is_plugged() -> bool:
    return True


async def is_gone() -> bool:
    return False


async def test_a_guest_releases_a_device_refuses_or_does_not_answer():
    await wait_for_release("disk", answer(True), 1, is_plugged)
    with pytest.raises(HypervisorError, match="the guest refuses to release disk"):
        await wait_for_release("disk", answer(False), 1, is_plugged)
    with pytest.raises(HypervisorError, match=r"has not released disk within 0\.01 s"):
        await wait_for_release("disk", asyncio.Event().wait(), 0.01, is_plugged)
    await wait_for_release("disk", asyncio.Event().wait(), 0.01, is_gone)


def test_the_last_error_of_a_program_is_no_warning_and_no_explanation():
    lines = [
        "emu-x86: first",
        "emu-x86: second",
        "as the manual says: do not",
        "emu-x86: warning: slow",
        "another: word",
    ]
    assert last_error(lines, "emu") == "second"
    assert last_error(["nothing", "of: it"], "emu") == ""


@dataclass(frozen=True)
class Sleeper(StartedMachine):
    """A process of this host that does nothing."""

    async def exit_reason(self) -> str:
        return "somebody woke it"

    async def live_phase(self) -> VmPhase:
        return VmPhase.RUNNING

    async def end(self) -> None:
        if self.process is not None:
            await self.process.kill(0)


@pytest.fixture
def sleeper() -> Iterator[Sleeper]:
    script = "import signal; print(flush=True); signal.pause()"
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as child:
        assert child.stdout.readline() == b"\n", "it runs"
        yield Sleeper(HostProcess.of(child.pid))
        child.kill()


async def test_a_started_machine_is_followed_to_its_end(sleeper):
    assert (await sleeper.status()).phase is VmPhase.RUNNING
    assert (await sleeper.stats()).resident_bytes > 0
    waiting = asyncio.ensure_future(sleeper.wait())
    status = await sleeper.stop(0)
    assert (status.phase, status.reason) == (VmPhase.ENDED, "somebody woke it")
    assert await waiting == status
    assert await sleeper.stop(0) == status
    with pytest.raises(HypervisorError, match="the machine has ended: somebody woke it"):
        await sleeper.stats()


async def test_a_machine_that_was_never_started_is_absent():
    absent = Sleeper(None)
    assert (await absent.wait()).phase is VmPhase.ABSENT
    assert (await absent.stop(5)).phase is VmPhase.ABSENT
    with pytest.raises(HypervisorError, match="the machine has ended"):
        await absent.live_process()
