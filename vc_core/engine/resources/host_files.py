"""Files and folders of the host that the containers of a runtime use."""

from __future__ import annotations

from pathlib import Path

from msgspec import Struct

from vc_core.engine.host.container_disks import ContainerDisks
from vc_core.images import Images


class HostFiles(Struct, frozen=True):
    """Files and folders of the host that containers use.

    Attributes:
        images: images for root file systems.
        disks: files of containers that outlive their machine.
        hidden: private folders of the runtime, hidden from every guest.
    """

    images: Images
    disks: ContainerDisks
    hidden: tuple[Path, ...] = ()
