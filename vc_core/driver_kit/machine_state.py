"""The state of a driver whose machines are processes: what another process needs to adopt one."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

from vc_core.driver_kit.accelerator import Accelerator
from vc_core.driver_kit.host_process import HostProcess
from vc_core.spec import GuestDriver, Plugged, VmSize


@dataclass(frozen=True)
class MachineState:
    """The stored state of one machine. Drivers add fields of their own.

    Attributes:
        uuid: uuid of the machine; no other process has it on its command line.
        accelerator: KVM or TCG.
        is_launched: whether a process may exist, also with an unknown pid.
        process: the process, when its pid is known.
        shares: tags of the shares that the machine was created with.
        vcpus: number at the start of the machine.
        memory_mib: memory in MiB at the start of the machine.
    """

    uuid: str = ""
    accelerator: Accelerator = Accelerator.TCG
    is_launched: bool = False
    process: HostProcess | None = None
    shares: tuple[str, ...] = ()
    vcpus: int = 0
    memory_mib: int = 0

    def with_process(self, *words: str) -> Self:
        """Returns the state with the process, which is searched for when its pid is unknown.

        A driver that is killed between the start and the next export of its state leaves such
        a machine.

        Args:
            words: words that only this machine's command line has.
        """
        if self.process is not None or not self.is_launched:
            return self
        return replace(self, process=HostProcess.find(*words))

    @property
    def start_size(self) -> VmSize:
        """The size at the start, below which a machine never shrinks."""
        return VmSize(vcpus=self.vcpus, memory_mib=self.memory_mib)

    @property
    def can_unplug_vcpus(self) -> bool:
        """Whether plugged vCPUs can be unplugged: TCG crashes some moments after (seen in 7.2)."""
        return self.accelerator is Accelerator.KVM

    def fixed_shares(self) -> tuple[Plugged, ...]:
        """The 9p shares that the machine was created with, for vm_shares."""
        return tuple(
            Plugged(id=f"share-{tag}", driver=GuestDriver.NINE_P, address=tag, is_fixed=True)
            for tag in self.shares
        )
