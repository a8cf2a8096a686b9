"""What another process needs to take a machine over."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace

from vc_core.driver_kit import HostProcess
from vc_qemu.errors import QemuError
from vc_qemu.hotplug import Place

SCHEMA = 2


@dataclass(frozen=True)
class MachineState:
    """The driver's memory of one machine.

    Attributes:
        uuid: on its command line.
        accelerator: what it runs on.
        is_launched: whether a process may exist, known or not.
        process: the process, when it is known.
        shares: tags that were there from the start.
        places: what was plugged since.
        vcpus: at the start.
        memory_mib: at the start.
        folder: where its files lie; empty for the pod's run folder.
    """

    uuid: str = ""
    accelerator: str = ""
    is_launched: bool = False
    process: HostProcess | None = None
    shares: tuple[str, ...] = ()
    places: tuple[Place, ...] = ()
    vcpus: int = 0
    memory_mib: int = 0
    folder: str = ""

    def to_json(self) -> str:
        """As text."""
        return json.dumps({"schema": SCHEMA, **asdict(self)})

    def without(self, place_id: str) -> MachineState:
        """After something was unplugged."""
        return replace(self, places=tuple(place for place in self.places if place.id != place_id))

    @classmethod
    def from_json(cls, text: str) -> MachineState:
        """Raises QemuError for text of another version."""
        try:
            told = json.loads(text)
            if told.pop("schema") != SCHEMA:
                raise QemuError(
                    "the machine was made by another version of virtcontainers-qemu; use that to stop it"
                )
            process = told.pop("process")
            places = tuple(Place.of(place) for place in told.pop("places"))
            shares = tuple(told.pop("shares"))
            return cls(
                process=HostProcess(**process) if process else None,
                places=places,
                shares=shares,
                **told,
            )
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise QemuError(f"the machine's record is damaged: {error}") from error
