"""A machine that is a process of this host, after its start."""

from __future__ import annotations

import abc
from dataclasses import dataclass

from vc_core.driver_kit.host_process import HostProcess
from vc_core.spec import HypervisorError, VmPhase, VmStats, VmStatus


@dataclass(frozen=True)
class StartedMachine(abc.ABC):
    """A machine that was started; it may have ended since.

    Drivers implement the query of its phase, its end, and the cause of its end.

    Attributes:
        process: the process that runs the machine, None when it was never started.
    """

    process: HostProcess | None

    @abc.abstractmethod
    async def exit_reason(self) -> str:
        """Returns why the machine has ended, in one sentence."""

    @abc.abstractmethod
    async def live_phase(self) -> VmPhase:
        """Returns the phase of a machine whose process runs."""

    @abc.abstractmethod
    async def end(self) -> None:
        """Ends the machine; returns when it has ended. One that has ended is no error."""

    def is_alive(self) -> bool:
        """Returns whether the process runs."""
        return self.process is not None and self.process.is_alive()

    async def live_process(self) -> HostProcess:
        """Returns the process.

        Raises:
            HypervisorError: the machine has ended.
        """
        if self.process is None or not self.process.is_alive():
            raise HypervisorError(f"the machine has ended: {await self.exit_reason()}")
        return self.process

    async def ended(self) -> None:
        """Returns when the process does not run, or not any more."""
        if self.process is not None:
            await self.process.ended()

    async def status(self) -> VmStatus:
        """Implements vm_status."""
        if self.process is None:
            return VmStatus(phase=VmPhase.ABSENT)
        if not self.process.is_alive():
            return VmStatus(phase=VmPhase.ENDED, pid=0, reason=await self.exit_reason())
        return VmStatus(phase=await self.live_phase(), pid=self.process.pid)

    async def wait(self) -> VmStatus:
        """Implements vm_wait: returns the status after the end."""
        await self.ended()
        return await self.status()

    async def stop(self, grace_s: float) -> VmStatus:
        """Implements vm_stop: ends a machine that still runs after `grace_s` seconds."""
        if self.process is not None and (
            grace_s <= 0 or not await self.process.ended_within(grace_s)
        ):
            await self.end()
        return await self.status()

    async def stats(self) -> VmStats:
        """Implements vm_stats.

        Raises:
            HypervisorError: the machine has ended.
        """
        process = await self.live_process()
        cpu_ns, resident_bytes = process.usage()
        read_bytes, written_bytes = process.transfers()
        return VmStats(
            cpu_ns=cpu_ns,
            resident_bytes=resident_bytes,
            read_bytes=read_bytes,
            written_bytes=written_bytes,
        )
