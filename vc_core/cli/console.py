"""Connects a process in a guest with our streams or our terminal."""

from __future__ import annotations

import asyncio
import logging
import signal
from typing import TYPE_CHECKING

from msgspec import Struct

from vc_core.cli.exit_codes import Exit
from vc_core.driver_kit.timeouts import timeout_after
from vc_core.spec.errors import InvalidRequest, StateError, VcError
from vc_core.spec.values import ExitStatus

if TYPE_CHECKING:
    from vc_core.cli.stdio import Interrupts
    from vc_core.engine.api.process import Process

log = logging.getLogger(__name__)


class Console(Struct, frozen=True):
    """How a process is connected.

    Attributes:
        keys: key sequence that detaches from a terminal, such as "ctrl-p,ctrl-q".
        is_terminal: whether the process has a terminal.
        is_detached: whether nothing is connected.
        timeout_s: seconds after which the process is killed; None for no limit.
    """

    keys: str
    is_terminal: bool
    is_detached: bool = False
    timeout_s: float | None = None

    def check(self) -> None:
        """Check the options before anything is created.

        Raises:
            InvalidRequest: options contradict each other, or our stdin is not a terminal.
        """
        if self.is_detached and self.timeout_s is not None:
            raise InvalidRequest("--detach and --timeout cannot be combined; remove one of them")
        if self.is_terminal and not self.is_detached:
            from vc_core.cli import terminal

            terminal.require_terminal()
            terminal.parse_keys(self.keys)

    async def connect(self, process: Process, interrupts: Interrupts) -> ExitStatus | None:
        """Return the exit status of the process, or None if the user detached from it."""
        if self.timeout_s is None:
            return await self._connect(process, interrupts)
        ending = asyncio.create_task(_end(process, self.timeout_s))
        try:
            async with timeout_after(self.timeout_s + process.end_limit_s) as limit:
                status = await self._connect(process, interrupts)
        except TimeoutError as error:
            if not limit.expired():
                raise
            raise process.does_not_end(self.timeout_s) from error
        finally:
            ending.cancel()
        if not ending.done() or ending.cancelled() or status is None:
            return status
        log.warning("the command was killed after %g s (--timeout)", self.timeout_s)
        return ExitStatus(code=Exit.TIMED_OUT)

    async def _connect(self, process: Process, interrupts: Interrupts) -> ExitStatus | None:
        if self.is_terminal:
            from vc_core.cli import terminal

            return await terminal.attach(process, interrupts, terminal.parse_keys(self.keys))
        from vc_core.cli.stdio import proxy

        return await proxy(process, interrupts)


async def _end(process: Process, limit_s: float) -> None:
    await asyncio.sleep(limit_s)
    try:
        await process.kill(signal.SIGKILL)
    except StateError:
        pass  # it ended at the same moment
    except VcError as error:
        log.warning("the command could not be killed after its timeout: %s", error)
