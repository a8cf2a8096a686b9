"""Options of the table [hypervisor.libvirt]."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from vc_core.driver_kit import Accelerator, proof_dir


def default_uri() -> str:
    """The system's libvirtd for root, the user's own for everybody else."""
    return "qemu:///system" if os.geteuid() == 0 else "qemu:///session"


@dataclass(frozen=True)
class LibvirtOptions:
    """How machines are run.

    Attributes:
        uri: which libvirtd, on this host: the machines' files are shared with it.
        emulator: the absolute path of the program that runs machines; empty for libvirt's own
            choice.
        accelerator: auto proves KVM by booting a guest, once per boot and emulator.
        machine: the machine type; must have PCIe.
        cpu: a CPU model of libvirt's; empty for the best that the accelerator has.
        max_vcpus: the ceiling for hot plug.
        max_memory_mib: the ceiling for hot plug.
        memory_slots: how often memory can be plugged.
        free_page_reporting: whether a machine gives memory back that its guest has freed.
        root_ports: places for devices that are plugged later.
        unplug_timeout_s: for the guest to let a device go.
        log_dir: where libvirtd writes what it says of each machine; empty for its own choice.
        proof_timeout_s: for the guest that proves KVM.
        proof_dir: where the proof is remembered.
    """

    uri: str = field(default_factory=default_uri)
    emulator: str = ""
    accelerator: Accelerator = Accelerator.AUTO
    machine: str = "q35"
    cpu: str = ""
    max_vcpus: int = 4
    max_memory_mib: int = 4096
    memory_slots: int = 16
    free_page_reporting: bool = True
    root_ports: int = 8
    unplug_timeout_s: float = 15
    log_dir: str = ""
    proof_timeout_s: float = 20
    proof_dir: Path = field(default_factory=proof_dir)

    def problems(self) -> Iterator[str]:
        """Values that cannot be."""
        if "://" not in self.uri and ":///" not in self.uri:
            yield "uri: is none; qemu:///system and qemu:///session are"
        if self.emulator and not self.emulator.startswith("/"):
            yield "emulator: must be an absolute path"
        for name in ("max_vcpus", "max_memory_mib", "memory_slots"):
            if getattr(self, name) < 1:
                yield f"{name}: must be at least 1"
        if not 0 <= self.root_ports <= 16:
            yield "root_ports: must be from 0 to 16, the machine's bus has no more places"

    @property
    def is_session(self) -> bool:
        """Whether machines run as this user, by a libvirtd of the user's own."""
        return "/session" in self.uri

    @property
    def is_mock(self) -> bool:
        """Whether libvirt only pretends: its test driver."""
        return self.uri.startswith("test:")

    @property
    def logs(self) -> Path:
        """The folder of logs."""
        if self.log_dir:
            return Path(self.log_dir)
        if not self.is_session:
            return Path("/var/log/libvirt/qemu")
        cache = os.environ.get("XDG_CACHE_HOME")
        return (Path(cache) if cache else Path.home() / ".cache") / "libvirt/qemu/log"
