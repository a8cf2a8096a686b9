"""Builds the configuration of a machine from the options and the engine's specification."""

from __future__ import annotations

import os
from pathlib import Path

from vc_core.driver_kit import Accelerator, check_guest_files, check_size, find_program
from vc_core.spec import FIRST_CHANNEL, PodRef, VmSpec
from vc_qemu import checkpoint
from vc_qemu.command_line import FolderShare, Machine, shape
from vc_qemu.errors import QemuError
from vc_qemu.options import QemuOptions

# ERMS and FSRM promise fast copies of bytes, which Linux and C libraries then use. QEMU emulates
# each byte as one step, and larger words in as many steps as there are words.
_EMULATED_CPU = "max,-erms,-fsrm"


def binary_of(options: QemuOptions, spec: VmSpec) -> str:
    """Returns QEMU's path, after checking that QEMU and the files of the guest exist.

    Raises:
        HypervisorError: QEMU or a file of the guest is missing.
    """
    check_guest_files(spec.guest)
    program = str(spec.binary or options.binary)
    binary = find_program(program)
    if binary is None:
        raise QemuError(f"{program} is missing; install the package qemu-system-x86")
    return binary


def machine_of(
    options: QemuOptions,
    pod: PodRef,
    spec: VmSpec,
    binary: str,
    accelerator: Accelerator,
    uuid: str,
) -> Machine:
    """Returns the machine for the command line.

    Raises:
        HypervisorError: the machine would be larger than the options allow.
    """
    check_size(spec, options.max_vcpus, options.max_memory_mib, "hypervisor.qemu")
    saved = spec.origin or spec.checkpoint_to
    reports = options.free_page_reporting and not saved
    return Machine(
        binary=binary,
        name=pod.id,
        uuid=uuid,
        accelerator=accelerator,
        machine=options.machine,
        cpu=options.cpu or ("host" if accelerator is Accelerator.KVM else _EMULATED_CPU),
        vcpus=spec.vcpus,
        max_vcpus=options.max_vcpus,
        memory_mib=spec.memory_mib,
        max_memory_mib=options.max_memory_mib,
        memory_slots=options.memory_slots,
        shared_memory=options.shared_memory,
        kernel=spec.guest.kernel,
        initrd=spec.guest.initrd,
        parameters=spec.guest.parameters,
        run_dir=pod.run_dir,
        shares=tuple(FolderShare(share.tag, share.path, share.read_only) for share in spec.shares),
        root_ports=options.root_ports,
        balloon_port=options.root_ports - 1 if reports else -1,
        share_slots=options.share_slots,
        is_root=os.geteuid() == 0,
        extra=options.extra_arguments,
        memory_file=saved.memory if saved else None,
        is_clone=spec.origin is not None,
        first_channel=FIRST_CHANNEL if saved else "",
    )


def fingerprint(machine: Machine) -> str:
    """Returns a text; machines with equal ones can start from each other's saved state.

    The format of the checkpoint's manifest is in it: a template of another version of this driver
    is of no use, and a new one is made beside it.
    """
    files = (Path(machine.binary).resolve(), machine.kernel, machine.initrd)
    programs = [checkpoint.program_of(str(file)) for file in files]
    return "\n".join([checkpoint.format_of(checkpoint.Manifest), *shape(machine), *programs])
