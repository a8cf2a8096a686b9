"""Determines why a machine ended, from libvirtd's log; reads the end of its console."""

from __future__ import annotations

import re
from pathlib import Path

from vc_core.driver_kit import last_error

# libvirt's virDomainShutoffReason, as in its log.
_REASONS = {
    "shutdown": "the guest powered off or reset itself",
    "destroyed": "it was ended",
    "crashed": "QEMU was killed or crashed, or the guest's kernel panicked",
    "failed": "it did not start",
    "daemon": "libvirtd ended it",
}
_END = re.compile(r"shutting down, reason=(\w+)")
_STAMP = re.compile(r"^\d{4}-\d\d-\d\d[T ][\d:.]+(Z|\+0000:)? ?")


def reason(log: Path) -> str:
    """Returns why the machine ended, in one sentence; quotes QEMU when it did not shut down."""
    lines = tail(log, 1 << 16).decode(errors="replace").splitlines()
    ends = [match[1] for line in lines if (match := _END.search(line))]
    if not ends:
        return "QEMU was killed or crashed"
    cause = _REASONS.get(ends[-1], ends[-1])
    message = last_error((_STAMP.sub("", line) for line in lines), "qemu")
    # A machine that is destroyed is ended by libvirt's own signal.
    if "terminating on signal" in message and ends[-1] != "destroyed":
        return f"QEMU was ended by a signal ({message})"
    if ends[-1] not in ("crashed", "failed"):
        return cause
    return f"{cause}; the last it said: {message}" if message else cause


def tail(file: Path, size: int) -> bytes:
    """Returns the last bytes of a file; none when it is missing or unreadable for this user."""
    try:
        with file.open("rb") as stream:
            stream.seek(max(0, file.stat().st_size - size))
            return stream.read()
    except (FileNotFoundError, PermissionError):
        return b""
