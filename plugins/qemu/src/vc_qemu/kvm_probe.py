"""A guest on KVM that powers off by itself, run by QEMU."""

from __future__ import annotations

import asyncio

from vc_core.driver_kit import KvmProof, program_environment
from vc_core.driver_kit.host_process import end_child


async def boot(command: tuple[str, ...], timeout_s: float) -> KvmProof:
    """Whether it does.

    Args:
        command: runs the guest.
        timeout_s: for it to end.
    """
    guest = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        cwd="/",  # QEMU looks for its firmware in the current folder first: qemu.git, softmmu/datadir.c
        env=program_environment(),
    )
    try:
        async with asyncio.timeout(timeout_s):
            _, words = await guest.communicate()
    except TimeoutError:
        return KvmProof(False, f"a guest on KVM did not reach userspace within {timeout_s:g} s")
    finally:
        await end_child(guest)
    if guest.returncode == 0:
        return KvmProof(True, "a guest on KVM booted and powered off")
    lines = words.decode(errors="replace").strip().splitlines()
    told = lines[0] if lines else f"QEMU ended with {guest.returncode}"
    return KvmProof(False, f"a guest on KVM failed: {told}")
