"""Helpers for authors of drivers.

Files and programs: file locks, trusted files and programs, host processes.
Machines that are host processes: their state, size, channels, accelerator and end. Names are
imported when they are first used.
"""

from vc_core.lazy_names import lazy_names

TYPE_CHECKING = False  # as typing has it, which takes longer to import than all of this

if TYPE_CHECKING:
    from vc_core.driver_kit.accelerator import Accelerator, accelerator_finding, choose_accelerator
    from vc_core.driver_kit.channel_id import ChannelId
    from vc_core.driver_kit.file_lock import FileLock, LockTimeout, lock_file
    from vc_core.driver_kit.host_process import HostProcess
    from vc_core.driver_kit.kvm_proof import KvmProof, known_kvm_proof, proof_dir, prove_kvm
    from vc_core.driver_kit.machine_state import MachineState
    from vc_core.driver_kit.named_namespace import process_namespace
    from vc_core.driver_kit.ownership import (
        opened_private_folder,
        private_folder,
        write_private_file,
    )
    from vc_core.driver_kit.program_log import last_error
    from vc_core.driver_kit.programs import find_program, program_environment
    from vc_core.driver_kit.record import (
        decode_record,
        encode_record,
        read_manifest,
        write_manifest,
    )
    from vc_core.driver_kit.release import wait_for_release
    from vc_core.driver_kit.sizing import ResizableMachine, resize
    from vc_core.driver_kit.started_machine import StartedMachine
    from vc_core.driver_kit.vm_checks import check_guest_files, check_size, first_free

_MODULES = {
    "Accelerator": "accelerator",
    "ChannelId": "channel_id",
    "FileLock": "file_lock",
    "HostProcess": "host_process",
    "KvmProof": "kvm_proof",
    "LockTimeout": "file_lock",
    "MachineState": "machine_state",
    "ResizableMachine": "sizing",
    "StartedMachine": "started_machine",
    "accelerator_finding": "accelerator",
    "check_guest_files": "vm_checks",
    "check_size": "vm_checks",
    "choose_accelerator": "accelerator",
    "decode_record": "record",
    "encode_record": "record",
    "find_program": "programs",
    "first_free": "vm_checks",
    "known_kvm_proof": "kvm_proof",
    "last_error": "program_log",
    "lock_file": "file_lock",
    "opened_private_folder": "ownership",
    "private_folder": "ownership",
    "process_namespace": "named_namespace",
    "program_environment": "programs",
    "proof_dir": "kvm_proof",
    "prove_kvm": "kvm_proof",
    "read_manifest": "record",
    "resize": "sizing",
    "wait_for_release": "release",
    "write_manifest": "record",
    "write_private_file": "ownership",
}

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
    "process_namespace",
    "program_environment",
    "proof_dir",
    "prove_kvm",
    "read_manifest",
    "resize",
    "wait_for_release",
    "write_manifest",
    "write_private_file",
]

__getattr__ = lazy_names(
    __name__, {name: f"{__name__}.{module}" for name, module in _MODULES.items()}
)
