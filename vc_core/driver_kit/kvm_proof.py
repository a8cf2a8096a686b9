"""Does KVM work here? A node that opens proves nothing: hosts exist where guests hang or their
machine aborts. So a driver boots a guest, once per boot of the host and program that runs machines;
all drivers remember it in one place.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from pathlib import Path

from vc_core.driver_kit.ownership import opened_private_folder

NODE = Path("/dev/kvm")
_SETTING = "proof_dir of the hypervisor"
_LARGEST = 64 << 10


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

    @classmethod
    def booted(cls) -> KvmProof:
        """The guest did what it should."""
        return cls(True, "a guest on KVM booted and powered off")

    @classmethod
    def failed(cls, reason: str) -> KvmProof:
        """The guest could not be started, or ended otherwise."""
        return cls(False, f"a guest on KVM failed: {reason}")

    @classmethod
    def timed_out(cls, limit_s: float) -> KvmProof:
        """The guest had not powered off after `limit_s` seconds."""
        return cls(False, f"a guest on KVM did not reach userspace within {limit_s:g} s")


def proof_dir() -> Path:
    """Where proofs are remembered until the next reboot, unless somebody says otherwise."""
    if os.geteuid() == 0:
        return Path("/run/virtcontainers/proofs")
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    return Path(runtime or f"/tmp/virtcontainers-{os.geteuid()}") / "virtcontainers/proofs"


async def prove_kvm(
    program: str, folder: Path, boot: Callable[[], Awaitable[KvmProof]]
) -> KvmProof:
    """The remembered answer of this boot of the host and this program, or a new one.

    Args:
        program: the path of what runs machines.
        folder: where answers are remembered.
        boot: tries with a guest that powers off by itself (Guest.proof_parameters), under a
            deadline of its own.

    Raises:
        InvalidRequest: the folder is not this user's alone.
    """
    known = known_kvm_proof(program, folder)
    if known is not None:
        return known
    found = await boot()
    proof = {"works": found.works, "detail": found.detail}
    text = json.dumps({"key": _key(program), "proof": proof}, indent=2) + "\n"
    name = _name(program)
    half = f".{name}.{secrets.token_hex(4)}"
    with opened_private_folder(folder, _SETTING) as place:
        handle = os.open(
            half,
            os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC,
            0o600,
            dir_fd=place,
        )
        with os.fdopen(handle, "w") as stream:
            stream.write(text)
        os.rename(half, name, src_dir_fd=place, dst_dir_fd=place)
    return replace(found, is_new=True)


def known_kvm_proof(program: str, folder: Path) -> KvmProof | None:
    """What is known without booting anything; None when nothing is.

    Raises:
        InvalidRequest: the folder is not this user's alone.
    """
    if not NODE.exists():
        return KvmProof(False, "there is no /dev/kvm")
    if not os.access(NODE, os.R_OK | os.W_OK):
        return KvmProof(False, "/dev/kvm is not open to this user (add yourself to the group kvm)")
    try:
        found = json.loads(_read(folder, _name(program)))
        proof = found["proof"]
        if found["key"] == _key(program):
            return KvmProof(bool(proof["works"]), str(proof["detail"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None  # none, or a damaged one, which the next proof replaces
    return None


def _read(folder: Path, name: str) -> bytes:
    """A file of the folder's own, no link."""
    with opened_private_folder(folder, _SETTING) as place:
        handle = os.open(
            name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=place
        )
    with os.fdopen(handle, "rb") as stream:
        return stream.read(_LARGEST)


def _name(program: str) -> str:
    return f"kvm-proof-{hashlib.sha256(program.encode()).hexdigest()[:8]}.json"


def _key(program: str) -> list[str]:
    """Another boot of the host, or another program (another file), needs another proof."""
    about = Path(program).stat()
    boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return [boot_id, program, str(about.st_mtime_ns), str(about.st_size)]
