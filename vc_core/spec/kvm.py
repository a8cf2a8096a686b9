"""Does KVM work here? A node that opens proves nothing: hosts exist where guests hang or their machine aborts. So a
driver boots a guest, once per boot of the host and program that runs machines; all drivers remember it in one place.
"""

from __future__ import annotations

import enum
import hashlib
import json
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from pathlib import Path

NODE = Path("/dev/kvm")


class Accelerator(enum.StrEnum):
    """How a guest's instructions are run, as users choose it."""

    AUTO = "auto"  # KVM where it is proven to work, else emulation, saying so
    KVM = "kvm"
    TCG = "tcg"  # emulation, by the name that it has in this field


@dataclass(frozen=True)
class KvmProof:
    """What was found out.

    Attributes:
        works: whether a guest reached userspace and powered off.
        detail: what happened, for people.
        is_new: whether it was found out just now.
    """

    works: bool
    detail: str
    is_new: bool = False


def proof_dir() -> Path:
    """Where proofs are remembered until the next reboot, unless somebody says otherwise."""
    if os.geteuid() == 0:
        return Path("/run/virtcontainers/proofs")
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    return Path(runtime or f"/tmp/virtcontainers-{os.geteuid()}") / "virtcontainers/proofs"


async def prove_kvm(program: str, folder: Path, boot: Callable[[], Awaitable[KvmProof]]) -> KvmProof:
    """The remembered answer of this boot of the host and this program, or a new one.

    Args:
        program: the path of what runs machines.
        folder: where answers are remembered.
        boot: tries with a guest that powers off by itself (Guest.proof_parameters), under a deadline of its own.
    """
    known = known_kvm_proof(program, folder)
    if known is not None:
        return known
    found = await boot()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    file = _file(folder, program)
    half = file.with_suffix(f".{os.getpid()}")
    proof = {"works": found.works, "detail": found.detail}
    half.write_text(json.dumps({"key": _key(program), "proof": proof}, indent=2) + "\n")
    half.replace(file)
    return replace(found, is_new=True)


def known_kvm_proof(program: str, folder: Path) -> KvmProof | None:
    """What is known without booting anything; None when nothing is."""
    if not NODE.exists():
        return KvmProof(False, "there is no /dev/kvm")
    if not os.access(NODE, os.R_OK | os.W_OK):
        return KvmProof(False, "/dev/kvm is not open to this user (add yourself to the group kvm)")
    try:
        found = json.loads(_file(folder, program).read_text())
    except (FileNotFoundError, PermissionError, json.JSONDecodeError):
        return None
    return KvmProof(**found["proof"]) if found.get("key") == _key(program) else None


def _file(folder: Path, program: str) -> Path:
    return folder / f"kvm-proof-{hashlib.sha256(program.encode()).hexdigest()[:8]}.json"


def _key(program: str) -> list[str]:
    """Another boot of the host, or another program (another file), needs another proof."""
    about = Path(program).stat()
    boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return [boot_id, program, str(about.st_mtime_ns), str(about.st_size)]
