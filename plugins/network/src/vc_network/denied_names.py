"""Names that were refused to a pod: written by the filter of names, read by any process."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import msgspec

_MOST = 256  # names of each reason: a guest can invent any number
_PAUSE_S = 1.0
_READ_BYTES = 1 << 20


class DeniedName(msgspec.Struct):
    """A name that was refused.

    Attributes:
        reason: "name" or "rebinding".
        name: as the guest has written it; empty for all further ones.
        count: of the look-ups.
        last_ns: time of the last one, in nanoseconds since the epoch.
    """

    reason: str
    name: str
    count: int
    last_ns: int


class DeniedNames:
    """Adds up what was refused, in memory and in a file."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._names: dict[tuple[str, str], DeniedName] = {}
        self._has_changed = asyncio.Event()

    def add(self, reason: str, name: str) -> None:
        """Counts a look-up that was refused."""
        known = (reason, name) in self._names
        if not known and sum(key[0] == reason for key in self._names) >= _MOST:
            name = ""
        found = self._names.setdefault((reason, name), DeniedName(reason, name, 0, 0))
        found.count += 1
        found.last_ns = time.time_ns()
        self._has_changed.set()

    async def keep_written(self) -> None:
        """Writes the file after changes, at most once in a second, without an end."""
        while True:
            await self._has_changed.wait()
            self._has_changed.clear()
            new = self._file.with_suffix(".new")
            new.write_bytes(msgspec.json.encode(list(self._names.values())))
            new.replace(self._file)
            await asyncio.sleep(_PAUSE_S)


def read(file: Path) -> tuple[DeniedName, ...]:
    """Returns what was refused; empty when nothing was."""
    try:
        with file.open("rb") as stream:
            return msgspec.json.decode(stream.read(_READ_BYTES), type=tuple[DeniedName, ...])
    except FileNotFoundError:
        return ()
