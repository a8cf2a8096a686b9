"""Ids of channels that name their owner, so that what a killed client has left can be removed."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from vc_core.driver_kit.host_process import HostProcess

_FORMAT = re.compile(r"channel-(\d+)-(\d+)-([A-Za-z0-9_]+)")


@dataclass(frozen=True)
class ChannelId:
    """A channel of one client.

    Attributes:
        owner: the client's process.
        token: tells the channel from others of the same machine.
    """

    owner: HostProcess
    token: str

    @classmethod
    def of_name(cls, name: str) -> Self:
        """Of this process; the token is the part of the channel's name after its last dot."""
        return cls(HostProcess.this(), name.rpartition(".")[2])

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """From `str(id)`; None for any other text."""
        match = _FORMAT.fullmatch(text)
        return cls(HostProcess(int(match[1]), int(match[2])), match[3]) if match else None

    def __str__(self) -> str:
        return f"channel-{self.owner.pid}-{self.owner.start_ticks}-{self.token}"

    def socket(self, folder: Path) -> Path:
        """The channel's socket in the machine's folder. Short: socket paths have 107 bytes."""
        return folder / f"{self.token}.sock"
