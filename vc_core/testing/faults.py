"""A plugin that makes one operation fail, to test that a fault leaves nothing behind."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from vc_core.spec import Operation, around_all


class InjectedFault(Exception):
    """The fault that a test requested."""


@dataclass
class Faults:
    """Selects the operation that fails. Counting starts again when a test empties `calls`.

    Attributes:
        at: the number of the operation; negative for none.
        is_after: whether it fails after it was done, instead of before.
        is_deadly: whether every later one fails, too, as if the caller had been killed.
        operation: an operation that fails each time; empty for none.
        calls: the operations so far.
    """

    at: int = -1
    is_after: bool = False
    is_deadly: bool = False
    operation: str = ""
    calls: list[str] = field(default_factory=list)


def fault_plugin(faults: Faults) -> type:
    """Returns an observer that makes the operation selected by `faults` fail."""

    @around_all
    class FaultPlugin:
        @asynccontextmanager
        async def surround(self, operation: Operation) -> AsyncIterator[None]:
            name, number = operation.name, len(faults.calls)
            faults.calls.append(name)
            is_dead = faults.is_deadly and number > faults.at >= 0
            if is_dead or name == faults.operation or (number == faults.at and not faults.is_after):
                raise InjectedFault(f"before {name}")
            yield
            # A fault after a lock was handed out takes the lock along; no caller can release that.
            if number == faults.at and faults.is_after and name != "storage_lock":
                raise InjectedFault(f"after {name}")

    return FaultPlugin
