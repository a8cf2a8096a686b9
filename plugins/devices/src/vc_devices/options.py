"""Options of the tables [device.block] and [device.vfio]."""

from __future__ import annotations

from pathlib import Path

from msgspec import Struct

from vc_core.spec import DriveBus


class BlockOptions(Struct, frozen=True):
    """How disks are plugged.

    Attributes:
        bus: "scsi" for many disks on one controller, "blk" for a PCI device of its own for each.
    """

    bus: DriveBus = DriveBus.SCSI


class VfioOptions(Struct, frozen=True):
    """Where PCI devices of the host are found.

    Attributes:
        sysfs: the folder that the kernel mounts its device tree on.
    """

    sysfs: Path = Path("/sys")
