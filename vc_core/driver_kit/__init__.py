"""Helpers for authors of drivers: file locks, host processes, trusted files and programs, the proof of KVM."""

from vc_core.driver_kit.file_lock import FileLock, LockTimeout, lock_file
from vc_core.driver_kit.host_process import HostProcess
from vc_core.driver_kit.kvm_proof import (
    Accelerator,
    KvmProof,
    known_kvm_proof,
    proof_dir,
    prove_kvm,
)
from vc_core.driver_kit.ownership import opened_private_folder, private_folder, write_private_file
from vc_core.driver_kit.programs import find_program, program_environment

__all__ = [
    "Accelerator",
    "FileLock",
    "HostProcess",
    "KvmProof",
    "LockTimeout",
    "find_program",
    "known_kvm_proof",
    "lock_file",
    "opened_private_folder",
    "private_folder",
    "program_environment",
    "proof_dir",
    "prove_kvm",
    "write_private_file",
]
