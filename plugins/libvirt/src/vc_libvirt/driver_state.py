"""What another process needs to take a machine over."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from vc_core.driver_kit import HostProcess
from vc_libvirt.errors import LibvirtError

SCHEMA = 1


@dataclass(frozen=True)
class MachineState:
    """The driver's memory of one machine. What is plugged is asked of libvirt, not remembered.

    Attributes:
        uuid: by which libvirt finds it.
        name: that it has at libvirt, and its log.
        kind: "kvm" or "qemu".
        is_launched: whether it may exist, known or not.
        process: that it is, when that is known.
        shares: tags that were there from the start.
        vcpus: at the start.
        memory_mib: at the start.
    """

    uuid: str = ""
    name: str = ""
    kind: str = ""
    is_launched: bool = False
    process: HostProcess | None = None
    shares: tuple[str, ...] = ()
    vcpus: int = 0
    memory_mib: int = 0

    def to_json(self) -> str:
        """As text."""
        return json.dumps({"schema": SCHEMA, **asdict(self)})

    @classmethod
    def from_json(cls, text: str) -> MachineState:
        """Raises LibvirtError for text of another version."""
        try:
            told = json.loads(text)
            if told.pop("schema") != SCHEMA:
                raise LibvirtError(
                    "the machine was made by another version of virtcontainers-libvirt; use that to stop it"
                )
            process, shares = told.pop("process"), tuple(told.pop("shares"))
            return cls(process=HostProcess(**process) if process else None, shares=shares, **told)
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise LibvirtError(f"the machine's record is damaged: {error}") from error
