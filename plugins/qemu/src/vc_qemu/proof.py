"""Does KVM work here? A node that opens proves nothing: hosts exist where guests hang or QEMU aborts. So: boot one."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path

KVM = Path("/dev/kvm")


@dataclass(frozen=True)
class Proof:
    """What was found out.

    Attributes:
        works: whether a guest reached userspace and powered off.
        detail: what happened, for people.
        is_new: whether it was found out just now.
    """

    works: bool
    detail: str
    is_new: bool = False


async def proven(command: tuple[str, ...], folder: Path, timeout_s: float) -> Proof:
    """The remembered answer of this boot and this QEMU, or a new one.

    Args:
        command: runs a guest that powers off by itself.
        folder: where it is remembered.
        timeout_s: for the guest.
    """
    known = remembered(command[0], folder)
    if known is not None:
        return known
    found = await _try(command, timeout_s)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    file = _file(folder, command[0])
    half = file.with_suffix(f".{os.getpid()}")
    half.write_text(json.dumps({"key": _key(command[0]), "proof": asdict(found)}, indent=2) + "\n")
    half.replace(file)
    return replace(found, is_new=True)


def remembered(binary: str, folder: Path) -> Proof | None:
    """What is known without booting anything; None when nothing is."""
    if not KVM.exists():
        return Proof(False, "there is no /dev/kvm")
    if not os.access(KVM, os.R_OK | os.W_OK):
        return Proof(False, "/dev/kvm is not open to this user (add yourself to the group kvm)")
    try:
        found = json.loads(_file(folder, binary).read_text())
    except (FileNotFoundError, PermissionError, json.JSONDecodeError):
        return None
    return Proof(**found["proof"]) if found.get("key") == _key(binary) else None


async def _try(command: tuple[str, ...], timeout_s: float) -> Proof:
    guest = await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE
    )
    try:
        async with asyncio.timeout(timeout_s):
            _, words = await guest.communicate()
    except TimeoutError:
        return Proof(False, f"a guest on KVM did not reach userspace within {timeout_s:g} s")
    finally:
        if guest.returncode is None:
            guest.kill()
            await guest.wait()
    if guest.returncode == 0:
        return Proof(True, "a guest on KVM booted and powered off")
    lines = words.decode(errors="replace").strip().splitlines()
    told = lines[0] if lines else f"QEMU ended with {guest.returncode}"
    return Proof(False, f"a guest on KVM failed: {told}")


def _file(folder: Path, binary: str) -> Path:
    return folder / f"kvm-proof-{hashlib.sha256(binary.encode()).hexdigest()[:8]}.json"


def _key(binary: str) -> list[str]:
    """Another boot of the host, or another QEMU (another file), needs another proof."""
    program = Path(binary).stat()
    boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return [boot_id, binary, str(program.st_mtime_ns), str(program.st_size)]
