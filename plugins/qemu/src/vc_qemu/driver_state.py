"""The driver's state: what another process needs to adopt a machine."""

from __future__ import annotations

from dataclasses import dataclass, replace

from vc_core.driver_kit import MachineState
from vc_qemu.hotplug import Place
from vc_qemu.jail.layers import Layer

SCHEMA = 3


@dataclass(frozen=True)
class QemuState(MachineState):
    """The stored state of one machine.

    Attributes:
        places: where devices are plugged.
        folder: the folder of the machine's files; empty for the pod's run folder.
        layers: layers of the jail that confine the machine.
        missing: layers that the host lacks: name, reason, remedy.
    """

    places: tuple[Place, ...] = ()
    folder: str = ""
    layers: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()

    @property
    def has_root(self) -> bool:
        """Whether the machine has a root of its own."""
        return Layer.ROOT in self.layers

    def without(self, place_id: str) -> QemuState:
        """Returns the state after a device was unplugged."""
        return replace(self, places=tuple(place for place in self.places if place.id != place_id))
