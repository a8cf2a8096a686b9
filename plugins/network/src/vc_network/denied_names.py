"""Names that were refused to a pod: written by the filter of names, read by any process."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Annotated, Literal

import msgspec

MOST_NAMES = 256  # of each reason: a guest can invent any number
_READ_BYTES = 1 << 20


class DeniedName(msgspec.Struct):
    """A name that was refused.

    Attributes:
        reason: "name" or "rebinding".
        name: as the guest has written it; empty for all further ones.
        count: of the look-ups.
        last_ns: time of the last one, in nanoseconds since the epoch.
    """

    reason: Literal["name", "rebinding"]
    name: Annotated[str, msgspec.Meta(max_length=1024)]
    count: Annotated[int, msgspec.Meta(ge=0)]
    last_ns: Annotated[int, msgspec.Meta(ge=0)]


class DeniedNames:
    """Adds up what was refused."""

    def __init__(self) -> None:
        self._names: dict[tuple[str, str], DeniedName] = {}
        self._has_changed = asyncio.Event()

    def add(self, reason: Literal["name", "rebinding"], name: str) -> None:
        """Counts a look-up that was refused."""
        known = (reason, name) in self._names
        if not known and sum(key[0] == reason for key in self._names) >= MOST_NAMES:
            name = ""
        found = self._names.setdefault((reason, name), DeniedName(reason, name, 0, 0))
        found.count += 1
        found.last_ns = time.time_ns()
        self._has_changed.set()

    async def changed(self) -> tuple[DeniedName, ...]:
        """Waits until something was refused since the last call; returns all that was."""
        await self._has_changed.wait()
        self._has_changed.clear()
        return tuple(self._names.values())


def read(file: Path) -> tuple[DeniedName, ...]:
    """Returns what was refused; empty when nothing was."""
    try:
        with file.open("rb") as stream:
            return msgspec.json.decode(stream.read(_READ_BYTES), type=tuple[DeniedName, ...])
    except FileNotFoundError:
        return ()
