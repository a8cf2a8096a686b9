"""Reads a JSON document by key, and collects all problems."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping
from typing import Any, TypeVar

T = TypeVar("T")
log = logging.getLogger(__name__)

# Properties of runtime-spec 1.3 (config.md, config-linux.md, config-vm.md) that are refused where
# they are not read: they would change the container.
_SPECIFIED = frozenset(
    (
        *("solaris", "windows", "vm", "zos", "freebsd", "domainname"),
        *("uidMappings", "gidMappings", "timeOffsets", "netDevices", "intelRdt", "memoryPolicy"),
        *("scheduler", "ioPriority", "execCPUAffinity", "commandLine", "username", "flags"),
        *("realtimeRuntime", "realtimePeriod", "idle", "burst", "blockIO", "network", "rdma"),
    )
)
_SHOWN = 100  # characters of a name


class Reader:
    """One object of a document.

    Args:
        value: the object; None for an empty one.
        path: its path in the document, for messages.
        problems: gets one line for each problem.
    """

    def __init__(self, value: object, path: str, problems: list[str]) -> None:
        self.path = path
        self.problems = problems
        if value is not None and not isinstance(value, Mapping):
            problems.append(f"{path}: must be an object")
            value = None
        self._value: Mapping[str, Any] = value or {}

    def at(self, key: str) -> str:
        """The path of a member."""
        return f"{self.path}.{key}" if self.path else key

    def object(self, key: str) -> Reader:
        """Read an object."""
        return Reader(self._value.get(key), self.at(key), self.problems)

    def objects(self, key: str) -> list[Reader]:
        """Read a list of objects."""
        items = self._typed(key, list, [])
        return [
            Reader(item, f"{self.at(key)}[{number}]", self.problems)
            for number, item in enumerate(items)
        ]

    def text(self, key: str, default: str = "") -> str:
        """Read a string."""
        return self._typed(key, str, default)

    def number(self, key: str, default: int = 0) -> int:
        """Read an integer."""
        return int(self._typed(key, int, default))

    def flag(self, key: str) -> bool:
        """Read a boolean; false if absent."""
        return self._typed(key, bool, False)

    def texts(self, key: str) -> tuple[str, ...]:
        """Read a list of strings."""
        strings = self._typed(key, list, [])
        if not all(isinstance(item, str) for item in strings):
            self.problems.append(f"{self.at(key)}: must be a list of strings")
            return ()
        return tuple(strings)

    def pairs(self, key: str) -> tuple[tuple[str, str], ...]:
        """Read an object of strings."""
        pairs = self._typed(key, dict, {})
        if not all(isinstance(item, str) for item in pairs.values()):
            self.problems.append(f"{self.at(key)}: must be an object of strings")
            return ()
        return tuple(pairs.items())

    def raw(self, key: str) -> Any:
        """Read any value; None if absent."""
        return self._value.get(key)

    def refuse(self, key: str, why: str = "not supported; remove it") -> None:
        """Report a member, unless it is absent, 0, empty, or a collection of such values."""
        if _is_set(self._value.get(key)):
            self.problems.append(f"{self.at(key)}: {why}")

    def refuse_others(self, known: Collection[str]) -> None:
        """Report members of the specification that are not known here, as `refuse` does.

        Members that the specification does not have are ignored, with a warning: see
        "Extensibility" in config.md of runtime-spec.
        """
        for key in self._value:
            if key in known:
                continue
            if key in _SPECIFIED:
                self.refuse(key)
            else:
                log.warning("%s: is unknown and has no effect", self.at(key[:_SHOWN]))

    def each(self, key: str, read: Callable[[Reader], T | None]) -> tuple[T, ...]:
        """Apply `read` to each object of a list, and drop results that are None."""
        values = (read(item) for item in self.objects(key))
        return tuple(item for item in values if item is not None)

    def _typed(self, key: str, kind: type[T], default: T) -> T:
        value = self._value.get(key)
        if value is None:
            return default
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            self.problems.append(f"{self.at(key)}: must be {_NAMES[kind]}")
            return default
        return value


def _is_set(value: Any) -> bool:
    if isinstance(value, Mapping):
        return any(_is_set(item) for item in value.values())
    if isinstance(value, list):
        return any(_is_set(item) for item in value)
    return bool(value)


_NAMES: Mapping[type, str] = {
    str: "a string",
    int: "an integer",
    bool: "true or false",
    list: "a list",
    dict: "an object",
}
