"""KVM or TCG for a machine, and the guest that tests KVM: it powers off by itself."""

from __future__ import annotations

import asyncio

from vc_core.driver_kit import (
    Accelerator,
    KvmProof,
    choose_accelerator,
    program_environment,
    prove_kvm,
)
from vc_core.driver_kit.host_process import end_child
from vc_core.driver_kit.timeouts import timeout_after
from vc_core.spec import Guest
from vc_qemu.command_line import proof_words
from vc_qemu.options import QemuOptions

OPTION = "hypervisor.qemu.accelerator"


async def choose(options: QemuOptions, binary: str, guest: Guest) -> Accelerator:
    """Returns KVM or TCG, as configured or as tested.

    Raises:
        HypervisorError: KVM is configured and does not work here.
    """
    return await choose_accelerator(
        options.accelerator, OPTION, lambda: prove(options, binary, guest)
    )


async def prove(options: QemuOptions, binary: str, guest: Guest) -> KvmProof:
    """Returns whether KVM works here: the stored result, or that of a guest booted now.

    Raises:
        InvalidRequest: other users can write to the folder of stored results.
    """
    command = proof_words(binary, guest.kernel, guest.initrd, guest.proof_parameters)
    return await prove_kvm(
        binary, options.proof_dir, lambda: boot_guest(command, options.proof_timeout_s)
    )


async def boot_guest(command: tuple[str, ...], timeout_s: float) -> KvmProof:
    """Boots a guest on KVM and waits until it has powered off.

    Args:
        command: QEMU's command line.
        timeout_s: seconds for the guest to end.
    """
    qemu = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        # QEMU looks for firmware in the current folder first: qemu.git, softmmu/datadir.c.
        cwd="/",
        env=program_environment(),
    )
    try:
        async with timeout_after(timeout_s):
            _, stderr = await qemu.communicate()
    except TimeoutError:
        return KvmProof.timed_out(timeout_s)
    finally:
        await end_child(qemu)
    if qemu.returncode == 0:
        return KvmProof.booted()
    lines = stderr.decode(errors="replace").strip().splitlines()
    return KvmProof.failed(lines[0] if lines else f"QEMU ended with {qemu.returncode}")
