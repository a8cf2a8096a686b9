"""Options of the table [hypervisor.qemu]."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from vc_core.driver_kit import Accelerator, proof_dir


@dataclass(frozen=True)
class QemuOptions:
    """How QEMU is run.

    Attributes:
        binary: a name on the path, or an absolute path.
        accelerator: auto proves KVM by booting a guest, once per boot and QEMU.
        machine: QEMU's machine type; must have PCIe.
        cpu: QEMU's CPU model; empty for the best that the accelerator has.
        max_vcpus: the ceiling for hot plug.
        max_memory_mib: the ceiling for hot plug.
        memory_slots: how often memory can be plugged.
        shared_memory: whether other processes can map the guest's memory: vhost-user devices need
            it.
        free_page_reporting: whether a booted machine gives memory back that its guest has freed;
            takes a place.
        root_ports: places for devices that are plugged later.
        share_slots: folders that can be added to a running pod.
        unplug_timeout_s: for the guest to let a device go.
        console_max_bytes: what is kept of the guest's console; until somebody looks, at most twice
            as much.
        proof_timeout_s: for the guest that proves KVM.
        proof_dir: where the proof is remembered.
        extra_arguments: appended to QEMU's command line as they are; paths in them must be
            absolute.
    """

    binary: str = "qemu-system-x86_64"
    accelerator: Accelerator = Accelerator.AUTO
    machine: str = "q35"
    cpu: str = ""
    max_vcpus: int = 4
    max_memory_mib: int = 4096
    memory_slots: int = 16
    shared_memory: bool = False
    free_page_reporting: bool = True
    root_ports: int = 8
    share_slots: int = 8
    unplug_timeout_s: float = 15
    console_max_bytes: int = 1 << 20
    proof_timeout_s: float = 20
    proof_dir: Path = field(default_factory=proof_dir)
    extra_arguments: tuple[str, ...] = ()

    def problems(self) -> Iterator[str]:
        """Values that cannot be."""
        if not self.binary or ("/" in self.binary and not self.binary.startswith("/")):
            yield "binary: must be a name on the path, or an absolute path"
        for name in ("max_vcpus", "max_memory_mib", "memory_slots", "console_max_bytes"):
            if getattr(self, name) < 1:
                yield f"{name}: must be at least 1"
        for name in ("root_ports", "share_slots"):
            if not 0 <= getattr(self, name) <= 24:
                yield f"{name}: must be from 0 to 24, the machine's bus has no more places"
