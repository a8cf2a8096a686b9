"""Options of the table [hypervisor.qemu]."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from msgspec import Struct, field

from vc_core.driver_kit import Accelerator, proof_dir
from vc_qemu.jail.layers import JailMode


class QemuOptions(Struct, frozen=True):
    """How the plugin runs QEMU.

    Attributes:
        binary: QEMU: a name on the path, or an absolute path.
        jail: what QEMU can reach of the host. auto confines QEMU with every layer that the host
            has; strict starts no machine without all of them; off leaves QEMU's own sandbox.
        accelerator: kvm, tcg (emulation) or auto: KVM when a test guest boots on it. The test is
            made once for each boot of the host and each QEMU.
        machine: QEMU's machine type; must have PCIe.
        cpu: QEMU's CPU model; empty for the best that the accelerator offers, without what it
            emulates slowly.
        max_vcpus: the largest number of vCPUs of a machine.
        max_memory_mib: the largest memory of a machine in MiB.
        memory_slots: how many times memory can be added to a running machine.
        shared_memory: whether other processes can map the guest's memory, as vhost-user devices
            require.
        free_page_reporting: whether a booted machine returns memory that its guest has freed;
            takes one root port.
        root_ports: how many PCI devices can be added to a running machine.
        share_slots: how many folders can be added to a running machine.
        unplug_timeout_s: seconds for the guest to release a device.
        console_max_bytes: how much of the guest's console is kept; the file may have twice that
            size until it is read.
        proof_timeout_s: seconds for the test guest to boot on KVM.
        proof_dir: the folder where results of the test are kept.
        extra_arguments: appended unchanged to QEMU's command line; paths in them must be absolute.
    """

    binary: str = "qemu-system-x86_64"
    jail: JailMode = JailMode.AUTO
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
        """Yields a sentence for each invalid value."""
        if not self.binary or ("/" in self.binary and not self.binary.startswith("/")):
            yield "binary: must be a name on the path, or an absolute path"
        for name in ("max_vcpus", "max_memory_mib", "memory_slots", "console_max_bytes"):
            if getattr(self, name) < 1:
                yield f"{name}: must be at least 1"
        for name in ("root_ports", "share_slots"):
            if not 0 <= getattr(self, name) <= 24:
                yield f"{name}: must be from 0 to 24, the number of places on the machine's bus"
