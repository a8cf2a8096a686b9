"""A machine as tests want one."""

from __future__ import annotations

from pathlib import Path

import pytest
from vc_libvirt.domain_xml import Domain, Folder

from vc_core.driver_kit import Accelerator


@pytest.fixture
def wanted() -> Domain:
    return Domain(
        name="vc-pod-7c0b1d9e",
        uuid="7c0b1d9e-0000-4000-8000-000000000001",
        pod="pod",
        accelerator=Accelerator.TCG,
        emulator="/usr/bin/qemu-system-x86_64",
        machine="q35",
        cpu="",
        vcpus=1,
        max_vcpus=4,
        memory_mib=256,
        max_memory_mib=4096,
        memory_slots=16,
        kernel=Path("/guest/vmlinux"),
        initrd=Path("/guest/initrd"),
        parameters=("console=ttyS0", "quiet"),
        console=Path("/run/pod/console"),
        shares=(Folder("vc0", Path("/a<b&c d"), read_only=True),),
        root_ports=2,
        owner=(1000, 1001),
    )
