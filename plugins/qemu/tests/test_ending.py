"""Why a machine ended, read from its log; logs that are kept small; records that survive
a process.
"""

from __future__ import annotations

import os

import pytest
from vc_qemu import exit_reason, process
from vc_qemu.driver_state import MachineState
from vc_qemu.errors import QemuError
from vc_qemu.hotplug import Place, free

from vc_core.driver_kit import HostProcess

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


def test_records_survive():
    saved = MachineState(
        "u", "tcg", True, HostProcess(7, 8), ("vc0",), (Place("share-vc1", "9p", "vc1", 0, 0),)
    )
    assert MachineState.from_json(saved.to_json()) == saved
    assert saved.without("share-vc1").places == ()
    for text in ("{", "{}", '{"schema": 99}'):
        with pytest.raises(QemuError):
            MachineState.from_json(text)


def test_places_are_reused_and_run_out_with_a_remedy():
    assert free({0, 2}, 4, "root_ports") == 1
    with pytest.raises(
        QemuError, match=r"all 2 places are taken; raise hypervisor\.qemu\.root_ports"
    ):
        free({0, 1}, 2, "root_ports")


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
