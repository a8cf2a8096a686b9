"""Tests whether KVM works here.

An accessible /dev/kvm is no proof: there are hosts where guests hang or their machine aborts.
Therefore a driver boots a guest, once for each boot of the host and each program that runs
machines. All drivers keep the results in one folder.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

from msgspec import Struct, structs

from vc_core.driver_kit.ownership import is_system_root, opened_private_folder, user_number

NODE = Path("/dev/kvm")
_SETTING = "proof_dir of the hypervisor"
_LARGEST = 64 << 10


class KvmProof(Struct, frozen=True):
    """The result of a test.

    Attributes:
        works: whether a guest reached userspace and powered off.
        detail: what happened, as text for users.
        is_new: whether the test was made just now.
    """

    works: bool
    detail: str
    is_new: bool = False

    @classmethod
    def booted(cls) -> KvmProof:
        """Returns the result for a guest that powered off as expected."""
        return cls(True, "a guest on KVM booted and powered off")

    @classmethod
    def failed(cls, reason: str) -> KvmProof:
        """Returns the result for a guest that failed to start, or ended otherwise."""
        return cls(False, f"a guest on KVM failed: {reason}")

    @classmethod
    def timed_out(cls, limit_s: float) -> KvmProof:
        """Returns the result for a guest that had not powered off after `limit_s` seconds."""
        return cls(False, f"a guest on KVM did not reach userspace within {limit_s:g} s")


def proof_dir() -> Path:
    """Returns the default folder of results, which is emptied by a reboot."""
    if is_system_root():
        return Path("/run/virtcontainers/proofs")
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    return Path(runtime or f"/tmp/virtcontainers-{user_number()}") / "virtcontainers/proofs"


async def prove_kvm(
    program: str, folder: Path, boot: Callable[[], Awaitable[KvmProof]]
) -> KvmProof:
    """Returns the stored result for this boot of the host and this program, or that of a new test.

    Args:
        program: path of the program that runs machines.
        folder: the folder of the results.
        boot: boots a guest that powers off by itself (Guest.proof_parameters), with its own
            time limit.

    Raises:
        InvalidRequest: the folder is not private to this user.
    """
    known = known_kvm_proof(program, folder)
    if known is not None:
        return known
    result = await boot()
    proof = {"works": result.works, "detail": result.detail}
    text = json.dumps({"key": _key(program), "proof": proof}, indent=2) + "\n"
    name = _name(program)
    half = f".{name}.{os.urandom(4).hex()}"
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
    return structs.replace(result, is_new=True)


def known_kvm_proof(program: str, folder: Path) -> KvmProof | None:
    """Returns the stored result, or a failure without /dev/kvm; None if a test is needed.

    Raises:
        InvalidRequest: the folder is not private to this user.
    """
    if not NODE.exists():
        return KvmProof(False, "there is no /dev/kvm")
    if not os.access(NODE, os.R_OK | os.W_OK):
        return KvmProof(False, "/dev/kvm is not open to this user (add yourself to the group kvm)")
    try:
        stored = json.loads(_read(folder, _name(program)))
        proof = stored["proof"]
        if stored["key"] == _key(program):
            return KvmProof(bool(proof["works"]), str(proof["detail"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None  # no result, or a damaged one, which the next test replaces
    return None


def _read(folder: Path, name: str) -> bytes:
    """Reads a file of the folder; does not follow a link."""
    with opened_private_folder(folder, _SETTING) as place:
        handle = os.open(
            name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=place
        )
    with os.fdopen(handle, "rb") as stream:
        return stream.read(_LARGEST)


def _name(program: str) -> str:
    return f"kvm-proof-{hashlib.sha256(program.encode()).hexdigest()[:8]}.json"


def _key(program: str) -> list[str]:
    """Returns the key of a result; another boot of the host or program file needs another test."""
    about = Path(program).stat()
    boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return [boot_id, program, str(about.st_mtime_ns), str(about.st_size)]
