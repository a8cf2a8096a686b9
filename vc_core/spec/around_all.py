"""Surround every operation: for plugins that measure, trace or disturb all of them alike.

@around_all
class Printer:
    @asynccontextmanager
    async def surround(self, operation: Operation) -> AsyncIterator[None]:
        yield                   # the operation runs here; its exception is raised here
        print(operation.pod, operation.plugin, operation.name)
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from contextvars import ContextVar
from typing import Protocol, TypeVar

from msgspec import Struct

from vc_core.spec.around import around
from vc_core.spec.hooks import FAMILIES


class Operation(Struct, frozen=True, kw_only=True):
    """One call of an operation.

    Attributes:
        name: name of its hook.
        plugin: name of the plugin that implements it.
        pod: id of its pod; empty for an operation that belongs to none.
    """

    name: str
    plugin: str
    pod: str


class Surrounding(Protocol):
    """The method that a class must have for `around_all`."""

    def surround(self, operation: Operation) -> AbstractAsyncContextManager[None]:
        """Entered before each operation, left after it."""


S = TypeVar("S", bound=type[Surrounding])

CURRENT: ContextVar[Operation] = ContextVar("operation")
"""Set by the engine during each operation."""


def around_all(plugin: S) -> S:
    """Makes `surround` of a class the wrapper of every operation."""
    for spec in FAMILIES.values():
        for name in vars(spec):
            if not name.startswith("_"):
                setattr(plugin, name, _wrapper(name))
    return plugin


def _wrapper(name: str) -> object:
    @asynccontextmanager
    async def step(self: Surrounding) -> AsyncIterator[None]:
        async with self.surround(CURRENT.get()):
            yield

    step.__name__ = name
    return around(step)
