"""Ids of channels that include their owner, so that those of killed clients can be removed."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Self

from msgspec import Struct

from vc_core.driver_kit.host_process import HostProcess

_FORMAT = r"channel-(\d+)-(\d+)-([A-Za-z0-9_]+)"


class ChannelId(Struct, frozen=True):
    """A channel of one client.

    Attributes:
        owner: the client's process.
        token: distinguishes the channels of one machine.
    """

    owner: HostProcess
    token: str

    @classmethod
    def of_name(cls, name: str) -> Self:
        """Returns the id of a channel of this process, with the name's last part as its token."""
        return cls(HostProcess.this(), name.rpartition(".")[2])

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """Parses the result of `str(id)`; returns None for any other text."""
        match = re.fullmatch(_FORMAT, text)
        return cls(HostProcess(int(match[1]), int(match[2])), match[3]) if match else None

    def __str__(self) -> str:
        return f"channel-{self.owner.pid}-{self.owner.start_ticks}-{self.token}"

    def socket(self, folder: Path) -> Path:
        """Returns the channel's socket in a machine's folder. Socket paths have 107 bytes."""
        return folder / f"{self.token}.sock"
