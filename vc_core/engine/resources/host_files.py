"""What of the host's files the containers of a runtime are made from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vc_core.engine.host.container_disks import ContainerDisks
from vc_core.images import Images


@dataclass(frozen=True)
class HostFiles:
    """Files and folders of the host that containers use.

    Attributes:
        images: that root file systems come from.
        disks: what containers write and what outlives their machine.
        hidden: folders of the runtime's own, of which no guest sees anything.
    """

    images: Images
    disks: ContainerDisks
    hidden: tuple[Path, ...] = ()
