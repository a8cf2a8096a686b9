"""The driver's state: what another process needs to adopt a machine."""

from __future__ import annotations

from dataclasses import dataclass

from vc_core.driver_kit import MachineState

SCHEMA = 2


@dataclass(frozen=True)
class LibvirtState(MachineState):
    """The stored state of one machine. Plugged devices are queried from libvirt.

    Attributes:
        name: name of the domain, and of libvirtd's log of it.
    """

    name: str = ""
