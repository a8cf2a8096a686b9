"""Helpers for authors of drivers.

Files and programs: file locks, trusted files and programs, host processes.
Machines that are host processes: their state, size, channels, accelerator and end.
"""

from vc_core.driver_kit.accelerator import Accelerator, accelerator_finding, choose_accelerator
from vc_core.driver_kit.channel_id import ChannelId
from vc_core.driver_kit.file_lock import FileLock, LockTimeout, lock_file
from vc_core.driver_kit.host_process import HostProcess
from vc_core.driver_kit.kvm_proof import KvmProof, known_kvm_proof, proof_dir, prove_kvm
from vc_core.driver_kit.machine_state import MachineState
from vc_core.driver_kit.ownership import opened_private_folder, private_folder, write_private_file
from vc_core.driver_kit.program_log import last_error
from vc_core.driver_kit.programs import find_program, program_environment
from vc_core.driver_kit.record import decode_record, encode_record, read_manifest, write_manifest
from vc_core.driver_kit.release import wait_for_release
from vc_core.driver_kit.sizing import ResizableMachine, resize
from vc_core.driver_kit.started_machine import StartedMachine
from vc_core.driver_kit.vm_checks import check_guest_files, check_size, first_free

__all__ = [
    "Accelerator",
    "ChannelId",
    "FileLock",
    "HostProcess",
    "KvmProof",
    "LockTimeout",
    "MachineState",
    "ResizableMachine",
    "StartedMachine",
    "accelerator_finding",
    "check_guest_files",
    "check_size",
    "choose_accelerator",
    "decode_record",
    "encode_record",
    "find_program",
    "first_free",
    "known_kvm_proof",
    "last_error",
    "lock_file",
    "opened_private_folder",
    "private_folder",
    "program_environment",
    "proof_dir",
    "prove_kvm",
    "read_manifest",
    "resize",
    "wait_for_release",
    "write_manifest",
    "write_private_file",
]
