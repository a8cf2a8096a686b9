"""Why a machine ended, from what QEMU left in its log; and a log file that does not grow for ever."""

from __future__ import annotations

import re
from pathlib import Path

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


def reason(log: Path) -> str:
    """One sentence; what QEMU itself said, when it did not end in order."""
    lines = log.read_text(errors="replace").splitlines() if log.exists() else []
    said = own_words(log)
    for line in reversed(lines):
        if match := _REQUEST.search(line):
            return _CAUSES.get(int(match[1]), f"cause {match[1]}") + (f" ({said})" if said else "")
    if "terminating on signal" in said:
        return f"QEMU was ended by a signal ({said})"
    if any(_SHUTDOWN.search(line) for line in lines):
        return "the guest's kernel panicked or reset itself"
    if any(_RUNNING.search(line) for line in lines):  # it got going, so what it said may be about something else
        return f"QEMU was killed or crashed; the last it said: {said}" if said else "QEMU was killed or crashed"
    return said or "QEMU was killed"


def is_paused(log: Path) -> bool:
    """Whether the last change of the machine's run state was a pause: its log knows without asking its monitor.

    Having been saved is one, too, until it is told to go on.
    """
    changes = _PAUSED.findall(log.read_text(errors="replace")) if log.exists() else []
    return bool(changes) and changes[-1] in ("paused", "postmigrate")


def own_words(log: Path) -> str:
    """The last line that QEMU wrote for people, without the program's name; empty when it wrote none."""
    lines = log.read_text(errors="replace").splitlines() if log.exists() else []
    told = [line for line in lines if line.strip() and not _TRACE.match(line)]
    errors = [line for line in told if line.startswith("qemu")]  # further lines only explain
    if errors:
        return errors[-1].partition(": ")[2].strip()
    return told[-1].strip() if told else ""


def trim(file: Path, max_bytes: int) -> None:
    """Keeps the end of a file that somebody appends to, when it has grown too large."""
    if not file.exists() or file.stat().st_size <= max_bytes:
        return
    kept = tail(file, max_bytes // 2)
    with file.open("ab") as stream:  # both sides append: what the writer adds meanwhile is overwritten by nobody
        stream.truncate(0)
        stream.write(kept)


def tail(file: Path, size: int) -> bytes:
    """The last bytes of a file; none when it is not there."""
    if not file.exists():
        return b""
    with file.open("rb") as stream:
        stream.seek(max(0, file.stat().st_size - size))
        return stream.read()
