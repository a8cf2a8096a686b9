"""Which namespace a path through `/proc/PID` names: pids are reused, and so are inode numbers."""

from __future__ import annotations

import os
import re

from vc_core.driver_kit.host_process import HostProcess

_OF_A_PROCESS = r"/proc/([0-9]+)/.+"


def process_namespace(path: str, found: os.stat_result) -> str:
    """Returns text that tells the namespace of a process from what the path may name later.

    Empty for a path that does not go through a process: who owns that may replace it.

    Args:
        path: of a namespace.
        found: the status of what the path names, taken before this call.

    Raises:
        ProcessLookupError, FileNotFoundError: the process has ended.
    """
    process = re.fullmatch(_OF_A_PROCESS, path)
    if process is None:
        return ""
    # A process that lives now and began before has been the same one in between.
    return f"{HostProcess.of(int(process[1])).start_ticks}:{found.st_dev}:{found.st_ino}"
