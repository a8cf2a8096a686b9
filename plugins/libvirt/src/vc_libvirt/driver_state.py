"""The driver's state: what another process needs to adopt a machine."""

from __future__ import annotations

from dataclasses import dataclass

from vc_core.driver_kit import MachineState

SCHEMA = 2


@dataclass(frozen=True)
class LibvirtState(MachineState):
    """What the driver remembers of one machine. libvirt is asked for what is plugged.

    Attributes:
        name: of the domain, and so of libvirtd's log of it.
    """

    name: str = ""
