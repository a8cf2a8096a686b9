"""A machine that was started: its process, its log and its monitor."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from vc_core.driver_kit import StartedMachine, lock_file
from vc_core.driver_kit.timeouts import timeout_after
from vc_core.spec import HypervisorError, VmPhase
from vc_qemu import console, exit_reason
from vc_qemu.answers import Status
from vc_qemu.errors import QemuError

if TYPE_CHECKING:
    from vc_qemu.monitor import Monitor

T = TypeVar("T")
log = logging.getLogger(__name__)

MONITOR_SOCKET = "qmp.sock"
_MONITOR_LOCK = "qmp.lock"
LOG = "qemu.log"
_TERM_S = 2.0  # QEMU ends within milliseconds of a signal when it can


@dataclass(frozen=True)
class RunningMachine(StartedMachine):
    """A machine that was started; it may have ended since.

    Attributes:
        folder: the folder of its socket, log and console.
    """

    folder: Path

    async def exit_reason(self) -> str:
        return exit_reason.reason(self.folder / LOG)

    async def live_phase(self) -> VmPhase:
        return VmPhase.PAUSED if await self._is_paused() else VmPhase.RUNNING

    async def end(self) -> None:
        if self.process is not None:
            await self.process.kill(_TERM_S)

    async def kill(self) -> None:
        """Ends QEMU at once; nothing of it is asked."""
        if self.process is not None:
            self.process.send(signal.SIGKILL)
            await self.process.ended()

    @asynccontextmanager
    async def monitor(self) -> AsyncIterator[Monitor]:
        """Provides a connection to QEMU's monitor; waits until no other client uses it.

        Raises:
            HypervisorError: the machine has ended, or its monitor does not answer.
        """
        from vc_qemu import monitor

        await self.live_process()
        async with (
            await lock_file(self.folder / _MONITOR_LOCK, exclusive=True),
            monitor.connected(self.folder / MONITOR_SOCKET) as connection,
        ):
            yield connection

    @asynccontextmanager
    async def monitor_if_free(self) -> AsyncIterator[Monitor]:
        """Like `monitor`, for read-only clients, which do not wait for a boot or a QEMU that hangs.

        Raises:
            HypervisorError: as `monitor`, or it was not free within console.LOOK_S seconds.
        """
        try:
            async with timeout_after(console.LOOK_S) as limit, self.monitor() as connection:
                limit.reschedule(None)
                yield connection
        except TimeoutError as error:
            raise QemuError(f"QEMU's monitor was not free within {console.LOOK_S:g} s") from error

    async def while_alive(self, call: Awaitable[T]) -> T:
        """Awaits a call that would hang, or fail without a reason, when QEMU ends meanwhile.

        Raises:
            QemuError: QEMU has ended, with the reason from its log; or the call's own error.
        """
        work = asyncio.ensure_future(call)
        end = asyncio.ensure_future(self.ended())
        try:
            await asyncio.wait([work, end], return_when=asyncio.FIRST_COMPLETED)
            if end.done() and not self.is_alive():
                raise QemuError(f"QEMU ended: {await self.exit_reason()}")
            return await work
        except HypervisorError as error:
            if self.is_alive():
                raise
            raise QemuError(f"QEMU ended: {await self.exit_reason()}") from error
        finally:
            for task in (work, end):
                task.cancel()
            await asyncio.gather(work, end, return_exceptions=True)

    async def _is_paused(self) -> bool:
        if not exit_reason.is_full(self.folder / LOG):
            return exit_reason.is_paused(self.folder / LOG)
        try:  # a guest has filled the log, so the last change is missing
            async with self.monitor_if_free() as monitor:
                status = await monitor.ask("query-status", Status)
                return status.status in exit_reason.PAUSES
        except HypervisorError as error:
            log.warning("cannot tell whether the machine in %s is paused: %s", self.folder, error)
            return False
