"""Steps with their undo: when a later step fails, the steps done are undone in reverse order.

The failure of an undo does not hide the original error: it is logged as a warning, and the other
undo steps still run.
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
    """A list of undo steps for a block that fails: `async with Rollback() as rollback:`."""

    def __init__(self) -> None:
        self._steps: list[Callable[[], Awaitable[object]]] = []

    def push(self, step: Callable[P, Awaitable[object]], *args: P.args, **kwargs: P.kwargs) -> None:
        """Adds an undo step. Add it before the step itself if it can undo a partial one."""
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
