"""Steps with their undo: when a later step fails, what was done is undone, the last first.

What an undo meets does not hide why it was needed: it is told as a warning, and those before it
still run.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import ParamSpec, Self

from vc_core.spec.errors import VcError

P = ParamSpec("P")
log = logging.getLogger(__name__)


class Rollback:
    """A list of what has to be done when the block fails: `async with Rollback() as rollback:`."""

    def __init__(self) -> None:
        self._steps: list[Callable[[], Awaitable[object]]] = []

    def push(self, step: Callable[P, Awaitable[object]], *args: P.args, **kwargs: P.kwargs) -> None:
        """Adds a step; give it before what it undoes when that can be undone half done."""
        self._steps.append(lambda: step(*args, **kwargs))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            return
        for step in reversed(self._steps):
            try:
                await step()
            except (VcError, OSError, asyncio.CancelledError) as second:
                log.warning("while undoing: %s", second or type(second).__name__)
