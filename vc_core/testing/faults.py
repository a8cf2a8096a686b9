"""A plugin that makes one operation fail: for tests that a fault at any step leaves
nothing behind.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from vc_core.spec import Operation, around_all


class InjectedFault(Exception):
    """What a test asked for."""


@dataclass
class Faults:
    """Which operation fails. Counting begins anew when a test empties `calls`.

    Attributes:
        at: the number of the operation; negative for none.
        is_after: whether it fails after it was done, instead of before.
        is_deadly: whether every later one fails, too, as if the caller had been killed.
        operation: one that fails each time; empty for none.
        calls: the operations so far.
    """

    at: int = -1
    is_after: bool = False
    is_deadly: bool = False
    operation: str = ""
    calls: list[str] = field(default_factory=list)


def fault_plugin(faults: Faults) -> type:
    """An observer that fails the operation which `faults` names."""

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
            # Whoever fails after a lock was handed out has taken it along; no caller can give that
            # back.
            if number == faults.at and faults.is_after and name != "storage_lock":
                raise InjectedFault(f"after {name}")

    return FaultPlugin
