"""Options of the store: its folders."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from msgspec import Struct, field

from vc_core.driver_kit.ownership import home_folder, is_system_root, user_number

_SOCKET_PATH = 107  # unix(7), sun_path
_LONGEST_RUN_ROOT = _SOCKET_PATH - len("/pods/0123456789ab/") - len("0123456789abcdef.sock")


def default_run_root() -> Path:
    """Returns /run for root; for other users a folder emptied by a reboot, if there is one."""
    if is_system_root():
        return Path("/run/virtcontainers")
    if runtime := os.environ.get("XDG_RUNTIME_DIR"):
        return Path(runtime) / "virtcontainers"
    import tempfile

    return Path(tempfile.gettempdir()) / f"virtcontainers-{user_number()}"


def default_config_root() -> Path:
    """Returns /var/lib for root; for other users the folder for state."""
    if is_system_root():
        return Path("/var/lib/virtcontainers")
    state = os.environ.get("XDG_STATE_HOME") or home_folder() / ".local/state"
    return Path(state) / "virtcontainers"


class FsOptions(Struct, frozen=True):
    """Options of the table [storage.fs].

    Attributes:
        run_root: what a reboot may take: states, sockets, locks.
        config_root: what it may not: configs.
    """

    run_root: Path = field(default_factory=default_run_root)
    config_root: Path = field(default_factory=default_config_root)

    def problems(self) -> Iterator[str]:
        """Yields a sentence for each invalid value."""
        length = len(os.fsencode(self.run_root))
        if length > _LONGEST_RUN_ROOT:
            yield (
                f"run_root: is {length} bytes long, and the paths of sockets below it may have "
                f"{_SOCKET_PATH}; "
                f"use one of at most {_LONGEST_RUN_ROOT}"
            )
