"""`vc` with a limit of memory, which writes down what it needed at most: a file, then the words of the command."""

from __future__ import annotations

import re
import resource
import sys
from pathlib import Path

# So that a fault of `vc` does not take the memory of this host: an address space holds more than what is used of it.
_ADDRESS_SPACE = 2 << 30


def _peak_kib() -> str:
    """Of this program alone: what getrusage(2) tells includes the process that started it."""
    match = re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())
    return match[1] if match else "?"


def main() -> None:
    from vc_core.__main__ import main as vc

    peak = Path(sys.argv.pop(1))
    resource.setrlimit(resource.RLIMIT_AS, (_ADDRESS_SPACE, _ADDRESS_SPACE))
    try:
        vc()
    finally:
        peak.write_text(_peak_kib())


if __name__ == "__main__":
    main()
