"""Options of the tables [device.block] and [device.vfio]."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vc_core.spec import DriveBus


@dataclass(frozen=True)
class BlockOptions:
    """How disks are plugged.

    Attributes:
        bus: "scsi" for many disks on one controller, "blk" for a PCI device of its own for each.
    """

    bus: DriveBus = DriveBus.SCSI


@dataclass(frozen=True)
class VfioOptions:
    """Where PCI devices of the host are found.

    Attributes:
        sysfs: the folder that the kernel mounts its device tree on.
    """

    sysfs: Path = Path("/sys")
