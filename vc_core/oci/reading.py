"""Reading a document by name: what is wrong or not known becomes a line, all of them at once."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any, TypeVar

T = TypeVar("T")


class Reader:
    """One object of a document.

    Args:
        value: the object; nothing is an empty one.
        path: its place, for messages.
        problems: grows by one line for each thing that is wrong.
    """

    def __init__(self, value: object, path: str, problems: list[str]) -> None:
        self.path = path
        self.problems = problems
        if value is not None and not isinstance(value, Mapping):
            problems.append(f"{path}: must be an object")
            value = None
        self._value: Mapping[str, Any] = value or {}

    def at(self, key: str) -> str:
        """The place of a member."""
        return f"{self.path}.{key}" if self.path else key

    def object(self, key: str) -> Reader:
        """A member that is an object."""
        return Reader(self._value.get(key), self.at(key), self.problems)

    def objects(self, key: str) -> list[Reader]:
        """A member that is a list of objects."""
        found = self._typed(key, list, [])
        return [
            Reader(item, f"{self.at(key)}[{number}]", self.problems)
            for number, item in enumerate(found)
        ]

    def text(self, key: str, default: str = "") -> str:
        """A member that is text."""
        return self._typed(key, str, default)

    def number(self, key: str, default: int = 0) -> int:
        """A member that is a whole number."""
        found = self._typed(key, int, default)
        return int(found)

    def flag(self, key: str) -> bool:
        """A member that is true or false."""
        return self._typed(key, bool, False)

    def texts(self, key: str) -> tuple[str, ...]:
        """A member that is a list of texts."""
        found = self._typed(key, list, [])
        if not all(isinstance(item, str) for item in found):
            self.problems.append(f"{self.at(key)}: must be a list of texts")
            return ()
        return tuple(found)

    def pairs(self, key: str) -> tuple[tuple[str, str], ...]:
        """A member that is an object of texts."""
        found = self._typed(key, dict, {})
        if not all(isinstance(item, str) for item in found.values()):
            self.problems.append(f"{self.at(key)}: must be an object of texts")
            return ()
        return tuple(found.items())

    def raw(self, key: str) -> Any:
        """A member as it is; None when it is absent."""
        return self._value.get(key)

    def refuse(self, key: str, why: str = "cannot be honoured") -> None:
        """Notes a member that is there and says something: not 0, empty, or an object or list of such."""
        if _says_something(self._value.get(key)):
            self.problems.append(f"{self.at(key)}: {why}")

    def refuse_others(self, known: Collection[str]) -> None:
        """Notes every member that is there, says something and is not known."""
        for key in self._value:
            if key not in known:
                self.refuse(key)

    def each(self, key: str, read: Callable[[Reader], T | None]) -> tuple[T, ...]:
        """What `read` makes of each object of a list; None leaves one out."""
        found = (read(item) for item in self.objects(key))
        return tuple(item for item in found if item is not None)

    def _typed(self, key: str, kind: type[T], default: T) -> T:
        value = self._value.get(key)
        if value is None:
            return default
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            self.problems.append(f"{self.at(key)}: must be {_NAMES[kind]}")
            return default
        return value


def _says_something(value: Any) -> bool:
    if isinstance(value, Mapping):
        return any(_says_something(one) for one in value.values())
    if isinstance(value, list):
        return any(_says_something(one) for one in value)
    return bool(value)


_NAMES: Mapping[type, str] = {
    str: "text",
    int: "a whole number",
    bool: "true or false",
    list: "a list",
    dict: "an object",
}
