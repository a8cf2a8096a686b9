"""Builds the configuration of a machine from the options and the engine's specification."""

from __future__ import annotations

import os
import uuid
from pathlib import Path

from vc_core.driver_kit import Accelerator, check_size
from vc_core.spec import PodRef, VmSpec
from vc_libvirt.domain_xml import Domain, Folder
from vc_libvirt.options import LibvirtOptions

_UUID_DIGITS = 8  # in a domain's name: pods of two stores may have the same name


def console_path(run_dir: Path) -> Path:
    """Returns the file of the guest's console."""
    return run_dir / "console"


def machine_of(options: LibvirtOptions, pod: PodRef, spec: VmSpec, emulator: str) -> Domain:
    """Returns the domain of a new machine, on TCG until the accelerator is chosen.

    Raises:
        HypervisorError: the machine would be larger than the options allow.
    """
    check_size(spec, options.max_vcpus, options.max_memory_mib, "hypervisor.libvirt")
    machine_uuid = str(uuid.uuid4())
    return Domain(
        name=f"vc-{pod.id}-{machine_uuid[:_UUID_DIGITS]}",
        uuid=machine_uuid,
        pod=pod.id,
        accelerator=Accelerator.TCG,
        emulator=emulator,
        machine=options.machine,
        cpu=options.cpu,
        vcpus=spec.vcpus,
        max_vcpus=options.max_vcpus,
        memory_mib=spec.memory_mib,
        max_memory_mib=options.max_memory_mib,
        memory_slots=options.memory_slots,
        kernel=spec.guest.kernel,
        initrd=spec.guest.initrd,
        parameters=spec.guest.parameters,
        console=console_path(pod.run_dir),
        shares=tuple(Folder(share.tag, share.path, share.read_only) for share in spec.shares),
        root_ports=options.root_ports,
        free_page_reporting=options.free_page_reporting,
        # The pod's files belong to this user and are closed to others. A libvirtd of the user's own
        # runs machines as that user anyway.
        owner=None if options.is_session else (os.geteuid(), os.getegid()),
    )
