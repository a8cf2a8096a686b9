"""How a command in a guest is connected to us: by bytes, by our terminal, or not at all."""

from __future__ import annotations

import asyncio
import logging
import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vc_core.cli.exit_codes import Exit
from vc_core.spec.errors import InvalidRequest, StateError, VcError
from vc_core.spec.values import ExitStatus

if TYPE_CHECKING:
    from vc_core.cli.stdio import Interrupts
    from vc_core.engine.api.process import Process

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Console:
    """What the options say of it.

    Attributes:
        keys: those that detach from a terminal, as "ctrl-p,ctrl-q".
        is_terminal: whether the command has one.
        is_detached: whether nobody is connected.
        timeout_s: after which the command is killed; None lets it run.
    """

    keys: str
    is_terminal: bool
    is_detached: bool = False
    timeout_s: float | None = None

    def check(self) -> None:
        """Raises InvalidRequest, before anything is made, for what cannot be."""
        if self.is_detached and self.timeout_s is not None:
            raise InvalidRequest(
                "--detach and --timeout contradict each other: nobody is there to look at the clock"
            )
        if self.is_terminal and not self.is_detached:
            from vc_core.cli import terminal

            terminal.require_terminal()
            terminal.parse_keys(self.keys)

    async def connect(self, process: Process, interrupts: Interrupts) -> ExitStatus | None:
        """Returns when the process has ended; None when the user has detached from it."""
        if self.timeout_s is None:
            return await self._connect(process, interrupts)
        ending = asyncio.create_task(_end(process, self.timeout_s))
        try:
            async with asyncio.timeout(self.timeout_s + process.end_limit_s) as limit:
                status = await self._connect(process, interrupts)
        except TimeoutError as error:
            if not limit.expired():
                raise
            raise process.does_not_end(self.timeout_s) from error
        finally:
            ending.cancel()
        if not ending.done() or ending.cancelled() or status is None:
            return status
        log.warning("the command was killed: its time of %g s (--timeout) was over", self.timeout_s)
        return ExitStatus(Exit.TIMED_OUT)

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
        pass  # it has ended at the same moment
    except VcError as error:
        log.warning("the command could not be killed when its time was over: %s", error)
