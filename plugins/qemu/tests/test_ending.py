"""Why a machine ended, read from its log; logs that are kept small; records that survive
a process.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
from contextlib import asynccontextmanager

import pytest
from vc_qemu import channels, checkpoint, exit_reason, process
from vc_qemu.driver_state import SCHEMA, QemuState
from vc_qemu.errors import QemuError
from vc_qemu.hotplug import Place, Room
from vc_qemu.running_machine import RunningMachine

from vc_core.driver_kit import HostProcess, decode_record, encode_record
from vc_core.spec import GuestDriver, HypervisorError

RUNNING = "runstate_set current_run_state 6 (prelaunch) new_state 9 (running)\n"
SHUTDOWN = "runstate_set current_run_state 9 (running) new_state 11 (shutdown)\n"
PAUSED = "runstate_set current_run_state 9 (running) new_state 4 (paused)\n"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (RUNNING + "qemu_system_shutdown_request reason=6\n" + SHUTDOWN, "the guest powered off"),
        (RUNNING + "qemu_system_shutdown_request reason=2\n" + SHUTDOWN, "QEMU was told to quit"),
        (RUNNING + SHUTDOWN, "the guest's kernel panicked or reset itself"),
        (
            RUNNING + "qemu-system-x86_64: terminating on signal 15 from pid 7 ()\n" + SHUTDOWN,
            "QEMU was ended by a signal (terminating on signal 15 from pid 7 ())",
        ),
        (RUNNING, "QEMU was killed or crashed"),
        (RUNNING + "qemu: oops\n", "QEMU was killed or crashed; the last it said: oops"),
        ("", "QEMU was killed"),
        ("qemu-system-x86_64: -x: invalid option\nand more words\n", "-x: invalid option"),
    ],
)
def test_reasons(tmp_path, text, reason):
    log = tmp_path / "log"
    log.write_text(text)
    assert exit_reason.reason(log) == reason


def test_the_log_knows_whether_the_machine_is_paused(tmp_path):
    log = tmp_path / "log"
    assert not exit_reason.is_paused(log)
    log.write_text(RUNNING + PAUSED)
    assert exit_reason.is_paused(log)
    log.write_text(RUNNING + PAUSED + RUNNING)
    assert not exit_reason.is_paused(log)


def test_a_log_that_a_guest_has_filled_does_not_tell_what_happened_since(tmp_path):
    log = tmp_path / "log"
    exit_reason.make_log(log)
    complaint = "qemu-system-x86_64: Guest says index 65535 is available\n"
    with log.open("ab", buffering=0) as writer:
        writer.write(RUNNING.encode())
        assert not exit_reason.is_full(log)
        assert exit_reason.reason(log) == "QEMU was killed or crashed"
        with pytest.raises(OSError, match=r"too large|Invalid"):
            writer.writelines([complaint.encode()] * 100_000)
    assert exit_reason.is_full(log)
    assert exit_reason.reason(log) == "not known: QEMU's log was full before"
    assert log.stat().st_blocks * 512 < 2 << 20


def test_the_state_survives_a_process():
    state = QemuState(
        uuid="u",
        is_launched=True,
        process=HostProcess(7, 8),
        shares=("vc0",),
        places=(
            Place("share-vc1", GuestDriver.NINE_P, "vc1", 0, 0, backends=(("block", "disk"),)),
        ),
    )
    assert decode_record(encode_record(state, SCHEMA), QemuState, SCHEMA, "the state") == state
    assert state.without("share-vc1").places == ()


def test_places_are_reused_and_run_out_with_a_remedy(tmp_path):
    taken = tuple(Place(str(port), GuestDriver.PCI, "", port=port) for port in (0, 2))
    assert Room(tmp_path, 4, 0, taken).port() == 1
    with pytest.raises(
        HypervisorError,
        match=r"all 1 root ports are taken; raise hypervisor\.qemu\.root_ports for new pods",
    ):
        Room(tmp_path, 1, 0, taken).port()


async def test_a_qemu_that_never_finishes_a_save_does_not_hang_the_caller(monkeypatch):
    class Unfinished:
        async def execute(self, command):
            raise QemuError(f"QEMU refused {command}: Migration is not finalized yet")

    monkeypatch.setattr(checkpoint, "_CONT_S", 0.2)
    async with asyncio.timeout(10):
        with pytest.raises(QemuError, match=r"did not resume the machine within 0\.2 s"):
            await checkpoint.cont(Unfinished())


def test_a_missing_program_says_so(tmp_path):
    with pytest.raises(QemuError, match="/no/qemu cannot be run: it is missing or not executable"):
        process.spawn(["/no/qemu"], tmp_path / "log", {})


async def test_the_process_keeps_no_folder_and_makes_no_file_that_others_can_open(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f":.:{tmp_path}:/usr/bin")
    before = os.umask(0)
    try:
        words = ["/bin/sh", "-c", f'pwd; echo "$PATH"; touch {tmp_path}/console']
        await process.spawn(words, tmp_path / "log", {}).ended()
    finally:
        os.umask(before)
    assert (tmp_path / "log").read_text().splitlines()[0] == "/"
    assert all(
        entry.startswith("/") for entry in (tmp_path / "log").read_text().splitlines()[1].split(":")
    )
    assert [(tmp_path / name).stat().st_mode & 0o777 for name in ("log", "console")] == [
        0o600,
        0o600,
    ]


@pytest.fixture
def sleeper():
    with subprocess.Popen(["sleep", "1000"]) as process:
        yield process
        process.kill()


@pytest.mark.parametrize("ends", [True, False])
async def test_a_channel_of_a_machine_that_ends_meanwhile_is_closed(
    tmp_path, monkeypatch, sleeper, ends
):
    monkeypatch.setattr(channels, "_END_S", 30 if ends else 0.2)

    class Ending(RunningMachine):
        @asynccontextmanager
        async def monitor(self):
            if ends:
                sleeper.kill()
            raise QemuError("QEMU went away during qom-list")
            yield  # makes it a generator

    (tmp_path / "socket").touch()
    machine = Ending(HostProcess.of(sleeper.pid), tmp_path)
    if ends:
        await channels.close(machine, "channel", tmp_path / "socket")
    else:
        with pytest.raises(QemuError, match="went away"):
            await channels.close(machine, "channel", tmp_path / "socket")
    assert (tmp_path / "socket").exists() is not ends
