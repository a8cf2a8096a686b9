"""Where the store lies."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass, field
from pathlib import Path


def default_run_root() -> Path:
    """/run for root; for others the folder that empties with a reboot, or one of their own where there is none."""
    if os.geteuid() == 0:
        return Path("/run/virtcontainers")
    if runtime := os.environ.get("XDG_RUNTIME_DIR"):
        return Path(runtime) / "virtcontainers"
    return Path(tempfile.gettempdir()) / f"virtcontainers-{os.geteuid()}"


def default_config_root() -> Path:
    """/var/lib for root; for others the folder for state."""
    if os.geteuid() == 0:
        return Path("/var/lib/virtcontainers")
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state") / "virtcontainers"


@dataclass(frozen=True)
class FsOptions:
    """Options of the table [storage.fs].

    Attributes:
        run_root: what a reboot may take: states, sockets, locks.
        config_root: what it may not: configs.
    """

    run_root: Path = field(default_factory=default_run_root)
    config_root: Path = field(default_factory=default_config_root)
