"""A machine that was started: its process, its log and its monitor."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from vc_core.driver_kit import HostProcess, lock_file
from vc_core.spec import VmPhase, VmStatus
from vc_qemu import console, exit_reason
from vc_qemu.errors import QemuError

if TYPE_CHECKING:
    from vc_qemu.monitor import Monitor

T = TypeVar("T")
log = logging.getLogger(__name__)

MONITOR_SOCKET = "qmp.sock"
_MONITOR_LOCK = "qmp.lock"
LOG = "qemu.log"


@dataclass(frozen=True)
class RunningMachine:
    """A machine that was started; it may have ended since.

    Attributes:
        folder: the folder of its socket, log and console.
        process: the QEMU process, None when the machine was never started.
    """

    folder: Path
    process: HostProcess | None

    def is_alive(self) -> bool:
        """Whether QEMU runs."""
        return self.process is not None and self.process.is_alive()

    def live_process(self) -> HostProcess:
        """The QEMU process.

        Raises:
            QemuError: the machine has ended.
        """
        if self.process is None or not self.process.is_alive():
            raise QemuError(f"the machine has ended: {self.exit_reason()}")
        return self.process

    async def ended(self) -> None:
        """Returns when no QEMU runs."""
        if self.process is not None:
            await self.process.ended()

    def exit_reason(self) -> str:
        """Why the machine has ended, in one sentence."""
        return exit_reason.reason(self.folder / LOG)

    async def status(self) -> VmStatus:
        """Phase, pid and the reason of an end."""
        if self.process is None:
            return VmStatus(VmPhase.ABSENT)
        if not self.process.is_alive():
            return VmStatus(VmPhase.ENDED, 0, self.exit_reason())
        phase = VmPhase.PAUSED if await self._is_paused() else VmPhase.RUNNING
        return VmStatus(phase, self.process.pid)

    @asynccontextmanager
    async def monitor(self) -> AsyncIterator[Monitor]:
        """A connection to QEMU's monitor, which serves one client at a time; waits for its turn.

        Raises:
            QemuError: the machine has ended, or its monitor does not answer.
        """
        from vc_qemu import monitor

        self.live_process()
        async with (
            await lock_file(self.folder / _MONITOR_LOCK, exclusive=True),
            monitor.connected(self.folder / MONITOR_SOCKET) as connection,
        ):
            yield connection

    @asynccontextmanager
    async def monitor_if_free(self) -> AsyncIterator[Monitor]:
        """The same for a client that only reads: it waits neither for a boot nor for a QEMU that hangs.

        Raises:
            QemuError: as `monitor`, or it was not free within console.LOOK_S seconds.
        """
        try:
            async with asyncio.timeout(console.LOOK_S) as limit, self.monitor() as connection:
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
                raise QemuError(f"QEMU ended: {self.exit_reason()}")
            return await work
        except QemuError as error:
            if self.is_alive():
                raise
            raise QemuError(f"QEMU ended: {self.exit_reason()}") from error
        finally:
            for task in (work, end):
                task.cancel()
            await asyncio.gather(work, end, return_exceptions=True)

    async def _is_paused(self) -> bool:
        if not exit_reason.is_full(self.folder / LOG):
            return exit_reason.is_paused(self.folder / LOG)
        try:  # a guest has filled the log, so the last change is not in it
            async with self.monitor_if_free() as monitor:
                return str((await monitor.execute("query-status"))["status"]) in exit_reason.PAUSES
        except QemuError as error:
            log.warning("cannot tell whether the machine in %s is paused: %s", self.folder, error)
            return False
