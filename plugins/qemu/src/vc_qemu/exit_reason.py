"""Why a machine ended, from what QEMU left in its log."""

from __future__ import annotations

import re
from pathlib import Path

from vc_qemu import bounded_file

PAUSES = ("paused", "postmigrate")
"""Run states of QEMU's in which a machine stands still; to have been saved is one, until it is told to go on."""

_ROOM = 1 << 20  # a guest can make QEMU complain for ever
_LINE = 4096  # longer than any that tells of the machine's state
# QEMU's ShutdownCause, qapi/run-state.json: the numbers that its trace prints.
_CAUSES = {
    1: "QEMU met an error",
    2: "QEMU was told to quit",
    6: "the guest powered off",
    7: "the guest reset itself",
    8: "the guest's kernel panicked",
}
_REQUEST = re.compile(r"qemu_system_shutdown_request reason=(\d+)")
_RUNNING = re.compile(r"runstate_set .*new_state \d+ \(running\)")
_SHUTDOWN = re.compile(r"runstate_set .*new_state \d+ \(shutdown\)")
_PAUSED = re.compile(r"runstate_set .*new_state \d+ \((\w+)\)")
_TRACE = re.compile(r"(?:\d+@[\d.]+:)?(?:runstate_set|qemu_system_shutdown_request) ")


def make_log(log: Path) -> None:
    """Makes an empty one, which the kernel bounds; that of the boot before goes."""
    log.unlink(missing_ok=True)
    bounded_file.make(log, _ROOM)


def is_full(log: Path) -> bool:
    """Whether what happened last may be missing in it."""
    return bounded_file.length(log, _ROOM) > _ROOM - _LINE


def reason(log: Path) -> str:
    """One sentence; what QEMU itself said, when it did not end in order."""
    lines = _text(log).splitlines()
    said = own_words(log)
    for line in reversed(lines):
        if match := _REQUEST.search(line):
            return _CAUSES.get(int(match[1]), f"cause {match[1]}") + (f" ({said})" if said else "")
    if is_full(log):
        return "not known: QEMU's log was full before"
    if "terminating on signal" in said:
        return f"QEMU was ended by a signal ({said})"
    if any(_SHUTDOWN.search(line) for line in lines):
        return "the guest's kernel panicked or reset itself"
    if any(
        _RUNNING.search(line) for line in lines
    ):  # it got going, so what it said may be about something else
        return (
            f"QEMU was killed or crashed; the last it said: {said}"
            if said
            else "QEMU was killed or crashed"
        )
    return said or "QEMU was killed"


def is_paused(log: Path) -> bool:
    """Whether the last change of the machine's run state was a pause: its log knows without asking its monitor."""
    changes = _PAUSED.findall(_text(log))
    return bool(changes) and changes[-1] in PAUSES


def own_words(log: Path) -> str:
    """The last line that QEMU wrote for people, without the program's name; empty when it wrote none."""
    lines = _text(log).splitlines()
    told = [line for line in lines if line.strip() and not _TRACE.match(line)]
    errors = [line for line in told if line.startswith("qemu")]  # further lines only explain
    if errors:
        return errors[-1].partition(": ")[2].strip()
    return told[-1].strip() if told else ""


def _text(log: Path) -> str:
    return bounded_file.tail(log, _ROOM, _ROOM).decode(errors="replace")
