"""Options of the table [agent.grpc]."""

from __future__ import annotations

import os
from pathlib import Path

from msgspec import Struct, field

from vc_core.driver_kit.ownership import home_folder, is_system_root

SYSTEM_CACHE = Path("/var/cache/virtcontainers")


def default_cache() -> Path:
    """Returns /var/cache for root; for other users the folder for caches."""
    if is_system_root():
        return SYSTEM_CACHE
    return Path(os.environ.get("XDG_CACHE_HOME") or home_folder() / ".cache") / "virtcontainers"


class GrpcAgentOptions(Struct, frozen=True):
    """The guest image and the command line of its kernel.

    Attributes:
        cache: holds guest images. Where it has none, those that root has built are used.
        guest: an image's id or its beginning; empty for the current one.
        kernel_parameters: appended to the guest's kernel command line.
    """

    cache: Path = field(default_factory=default_cache)
    guest: str = ""
    kernel_parameters: tuple[str, ...] = ()
