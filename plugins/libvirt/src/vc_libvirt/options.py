"""Options of the table [hypervisor.libvirt]."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from vc_core.driver_kit import Accelerator, proof_dir
from vc_core.driver_kit.ownership import home_folder, is_system_root


def default_uri() -> str:
    """Returns the system's libvirtd for root, the user's own for other users."""
    return "qemu:///system" if is_system_root() else "qemu:///session"


@dataclass(frozen=True)
class LibvirtOptions:
    """How the plugin runs machines.

    Attributes:
        uri: of a libvirtd on this host, which opens the files of the machines.
        emulator: absolute path of the program that runs machines; empty for libvirt's choice.
        accelerator: kvm, tcg (emulation) or auto: KVM when a test guest boots on it. The test is
            made once for each boot of the host and each emulator.
        machine: QEMU's machine type; must have PCIe.
        cpu: libvirt's CPU model; empty for the best that the accelerator offers.
        max_vcpus: the largest number of vCPUs of a machine.
        max_memory_mib: the largest memory of a machine in MiB.
        memory_slots: how many times memory can be added to a running machine.
        free_page_reporting: whether a machine returns memory that its guest has freed.
        root_ports: how many PCI devices can be added to a running machine.
        unplug_timeout_s: seconds for the guest to release a device.
        log_dir: the folder of libvirtd's logs of machines; empty for the default of the URI.
        proof_timeout_s: seconds for the test guest to boot on KVM.
        proof_dir: the folder where results of the test are kept.
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
        """Yields a sentence for each invalid value."""
        if "://" not in self.uri and ":///" not in self.uri:
            yield "uri: must be a libvirt URI, such as qemu:///system or qemu:///session"
        if self.emulator and not self.emulator.startswith("/"):
            yield "emulator: must be an absolute path"
        for name in ("max_vcpus", "max_memory_mib", "memory_slots"):
            if getattr(self, name) < 1:
                yield f"{name}: must be at least 1"
        if not 0 <= self.root_ports <= 16:
            yield "root_ports: must be from 0 to 16, the number of places on the machine's bus"

    @property
    def is_session(self) -> bool:
        """Whether the URI is of a libvirtd of this user, whose machines run as this user."""
        return "/session" in self.uri

    @property
    def is_mock(self) -> bool:
        """Whether the URI is of libvirt's test driver, which runs no machines."""
        return self.uri.startswith("test:")

    @property
    def logs(self) -> Path:
        """The folder of libvirtd's logs of machines."""
        if self.log_dir:
            return Path(self.log_dir)
        if not self.is_session:
            return Path("/var/log/libvirt/qemu")
        cache = os.environ.get("XDG_CACHE_HOME")
        return (Path(cache) if cache else home_folder() / ".cache") / "libvirt/qemu/log"
