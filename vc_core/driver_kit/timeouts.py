"""Deadlines that also hold in a task that was cancelled before, as in its clean-up."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self


class _Timeout(asyncio.Timeout):  # type: ignore[misc]  # final, so that nobody relies on its parts
    """What asyncio.Timeout is since Python 3.12.

    That of Python 3.11 takes the end of its time for a cancellation when the task was cancelled
    earlier: clean-up after Ctrl-C would end there.
    """

    async def __aenter__(self) -> Self:
        task = asyncio.current_task()
        self._task_cancelling = task.cancelling() if task else 0
        await super().__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await super().__aexit__(kind, error, trace)
        task = asyncio.current_task()
        is_ours = task is not None and task.cancelling() <= self._task_cancelling
        if self.expired() and is_ours and kind is asyncio.CancelledError:
            raise TimeoutError from error


def timeout_after(limit_s: float | None) -> asyncio.Timeout:
    """Returns an async context manager that raises TimeoutError after `limit_s` seconds.

    As asyncio.timeout. None sets no limit.
    """
    when = None if limit_s is None else asyncio.get_running_loop().time() + limit_s
    return _Timeout(when)
