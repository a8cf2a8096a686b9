"""A limit of memory for a program of a test, and what it needed at most."""

from __future__ import annotations

import re
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# So that a fault does not take the memory of this host: an address space holds more than what is
# used of it.
_ADDRESS_SPACE = 2 << 30


def _peak_kib() -> str:
    """Of this program alone: what getrusage(2) tells includes the process that started it."""
    match = re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())
    return match[1] if match else "?"


@contextmanager
def limited(peak: Path) -> Iterator[None]:
    """Limits the address space for a block, and writes its peak in KiB to a file."""
    resource.setrlimit(resource.RLIMIT_AS, (_ADDRESS_SPACE, _ADDRESS_SPACE))
    try:
        yield
    finally:
        peak.write_text(_peak_kib())
