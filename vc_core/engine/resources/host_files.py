"""Files and folders of the host that the containers of a runtime use."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vc_core.engine.host.container_disks import ContainerDisks
from vc_core.images import Images


@dataclass(frozen=True)
class HostFiles:
    """Files and folders of the host that containers use.

    Attributes:
        images: images for root file systems.
        disks: files of containers that outlive their machine.
        hidden: private folders of the runtime, hidden from every guest.
    """

    images: Images
    disks: ContainerDisks
    hidden: tuple[Path, ...] = ()
