"""Why a machine ended, from the log that libvirtd keeps of it; and what its console has said."""

from __future__ import annotations

import re
from pathlib import Path

# libvirt's virDomainShutoffReason, as it writes it.
_REASONS = {
    "shutdown": "the guest powered off or reset itself",
    "destroyed": "it was ended",
    "crashed": "QEMU was killed or crashed, or the guest's kernel panicked",
    "failed": "it did not start",
    "daemon": "libvirtd ended it",
}
_END = re.compile(r"shutting down, reason=(\w+)")
_STAMP = re.compile(r"^\d{4}-\d\d-\d\d[T ][\d:.]+(Z|\+0000:)? ?")
_PROGRAM = re.compile(r"^qemu[\w-]*: ")


def reason(log: Path) -> str:
    """One sentence; what the machine's program said last, when it did not end in order."""
    lines = tail(log, 1 << 16).decode(errors="replace").splitlines()
    ends = [found[1] for line in lines if (found := _END.search(line))]
    if not ends:
        return "QEMU was killed or crashed"
    told = _REASONS.get(ends[-1], ends[-1])
    said = _own_words(lines)
    if (
        "terminating on signal" in said and ends[-1] != "destroyed"
    ):  # libvirt ends machines by a signal, too
        return f"QEMU was ended by a signal ({said})"
    if ends[-1] not in ("crashed", "failed"):
        return told
    return f"{told}; the last it said: {said}" if said else told


def _own_words(lines: list[str]) -> str:
    told = [_STAMP.sub("", line) for line in lines]
    errors = [
        _PROGRAM.sub("", line) for line in told if _PROGRAM.match(line) and "warning:" not in line
    ]
    return errors[-1] if errors else ""


def tail(file: Path, size: int) -> bytes:
    """The last bytes of a file; none when it is not there or not ours to read."""
    try:
        with file.open("rb") as stream:
            stream.seek(max(0, file.stat().st_size - size))
            return stream.read()
    except (FileNotFoundError, PermissionError):
        return b""
