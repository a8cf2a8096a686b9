"""Determines why a machine ended, from QEMU's log."""

from __future__ import annotations

import re
from pathlib import Path

from vc_core.driver_kit import last_error
from vc_qemu import bounded_file

PAUSES = ("paused", "postmigrate")
"""QEMU's run states with stopped vCPUs; postmigrate is that of a saved machine."""

_MAX_BYTES = 1 << 20  # a guest can make QEMU log errors without end
_LINE = 4096  # longer than any line about the machine's state
# QEMU's ShutdownCause, qapi/run-state.json: the numbers in its trace.
_CAUSES = {
    1: "QEMU met an error",
    2: "QEMU was told to quit",
    6: "the guest powered off",
    7: "the guest reset itself",
    8: "the guest's kernel panicked",
}
_REQUEST = r"qemu_system_shutdown_request reason=(\d{1,9})\b"
_RUNNING = r"runstate_set .*new_state \d+ \(running\)"
_SHUTDOWN = r"runstate_set .*new_state \d+ \(shutdown\)"
_PAUSED = r"runstate_set .*new_state \d+ \((\w+)\)"
_TRACE = r"(?:\d+@[\d.]+:)?(?:runstate_set|qemu_system_shutdown_request) "


def make_log(log: Path) -> None:
    """Creates an empty log of bounded size; removes that of the previous boot."""
    log.unlink(missing_ok=True)
    bounded_file.make(log, _MAX_BYTES)


def is_full(log: Path) -> bool:
    """Returns whether the log is full, so that the last messages may be missing."""
    return bounded_file.length(log, _MAX_BYTES) > _MAX_BYTES - _LINE


def reason(log: Path) -> str:
    """Returns why the machine ended, in one sentence; quotes QEMU when it did not shut down."""
    lines = _text(log).splitlines()
    message = last_message(log)
    for line in reversed(lines):
        if match := re.search(_REQUEST, line):
            cause = _CAUSES.get(int(match[1]), f"cause {match[1]}")
            return f"{cause} ({message})" if message else cause
    if is_full(log):
        return "not known: QEMU's log was full before"
    if "terminating on signal" in message:
        return f"QEMU was ended by a signal ({message})"
    if any(re.search(_SHUTDOWN, line) for line in lines):
        return "the guest's kernel panicked or reset itself"
    if any(re.search(_RUNNING, line) for line in lines):
        # The guest ran, so the last message may be about something else.
        cause = "QEMU was killed or crashed"
        return f"{cause}; the last it said: {message}" if message else cause
    return message or "QEMU was killed"


def is_paused(log: Path) -> bool:
    """Returns whether the last change of the run state in the log was a pause; needs no monitor."""
    changes = re.findall(_PAUSED, _text(log))
    return bool(changes) and changes[-1] in PAUSES


def last_message(log: Path) -> str:
    """Returns QEMU's last error, or else the last line that is no trace; empty if none."""
    lines = [
        line for line in _text(log).splitlines() if line.strip() and not re.match(_TRACE, line)
    ]
    return last_error(lines, "qemu") or (lines[-1].strip() if lines else "")


def _text(log: Path) -> str:
    return bounded_file.tail(log, _MAX_BYTES, _MAX_BYTES).decode(errors="replace")
