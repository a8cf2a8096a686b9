"""Guest images in the cache folder, built once per content and never overwritten."""

from __future__ import annotations

import contextlib
import fcntl
import functools
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from msgspec import Struct

from vc_agent_grpc import seccomp
from vc_agent_grpc.image import agent_program, kernel, modules, programs, seccomp_program
from vc_agent_grpc.image.cpio import Archive
from vc_agent_grpc.image.errors import ImageError
from vc_agent_grpc.image.vmlinux import extract_vmlinux
from vc_core.spec import DEFAULT_CAPABILITIES

SCHEMA = 2
_MANIFEST = "manifest.json"
_CURRENT = "current"
_PROGRAM = agent_program.AGENT
_STAND_IN = agent_program.STAND_IN
_FILTER = "seccomp.bpf"

Report = Callable[[str], None]


class Guest(Struct, frozen=True):
    """One guest image.

    Attributes:
        id: the first 16 hex digits of the SHA-256 over kernel and initrd.
        kernel: an ELF `vmlinux` with a PVH entry.
        initrd: an uncompressed newc archive: unpacking costs more than reading, under emulation.
        program: the agent alone, to run it without a kernel; None in images of older versions.
        stand_in: the program that stands in on the host for a process of a guest; None in images of
            older versions, and of an agent that was given as a program without one beside it.
        release: release of the kernel.
        inputs: its inputs, name to version or digest.
        size_bytes: total size of all files, in bytes.
        is_current: whether new pods use it.
        filter: the compiled default seccomp filter of containers; empty in images that were built
            without it or with another list.
    """

    id: str
    kernel: Path
    initrd: Path
    program: Path | None
    release: str
    inputs: dict[str, str]
    size_bytes: int
    is_current: bool
    filter: bytes = b""
    stand_in: Path | None = None


def build(
    cache: Path,
    report: Report,
    kernel_image: Path | None = None,
    kernel_modules: Path | None = None,
    agent: Path | None = None,
) -> Guest:
    """Makes the image of this host's kernel package, agent and crun current; builds it if missing.

    Args:
        cache: the folder of images.
        report: called with a line before each long step.
        kernel_image: a kernel instead of the distribution's package.
        kernel_modules: the folder of its modules; derived from the image's name when None.
        agent: an agent's program instead of building one.

    Raises:
        ImageError: something is missing; the message names the package that has it.
    """
    crun = programs.find("crun", "crun")
    chosen_kernel = kernel.fingerprint(
        kernel_image, kernel_modules
    )  # before the agent is built, which takes minutes
    program = agent or agent_program.built(cache, report) / _PROGRAM
    stand_in = program.with_name(_STAND_IN)
    container_filter = seccomp.default_filter(DEFAULT_CAPABILITIES)
    inputs = {
        "schema": str(SCHEMA),
        "kernel": chosen_kernel,
        "agent": _digest(program.read_bytes()),
        "stand-in": _digest(stand_in.read_bytes()) if stand_in.exists() else "",
        "crun": _digest(crun.read_bytes()),
        "modules": _digest(json.dumps(modules.PURPOSES).encode()),
        "seccomp": seccomp.digest(container_filter),
    }
    with _locked(cache):
        for image in images(cache):
            if image.inputs == inputs and is_whole(image):
                return _make_current(cache, image.id)
        with contextlib.ExitStack() as stack:
            if kernel_image is None:
                source = stack.enter_context(kernel.fetched(report))
            else:
                source = kernel.from_paths(kernel_image, kernel_modules)
            report(f"packing the guest image for Linux {source.release}")
            vmlinux = extract_vmlinux(source.image.read_bytes())
            files = {
                "vmlinux": vmlinux,
                "initrd": _initrd(source, program, crun),
                _PROGRAM: program.read_bytes(),
                _FILTER: seccomp_program.compiled(container_filter),
            }
            if stand_in.exists():
                files[_STAND_IN] = stand_in.read_bytes()
            return _make_current(cache, _store(cache, files, source.release, inputs))


def current(cache: Path) -> Guest:
    """Returns the image for new pods.

    Raises:
        ImageError: none has been built.
    """
    for image in images(cache):
        if image.is_current:
            return image
    raise ImageError("no guest image has been built; run 'vc guest build'")


def is_whole(image: Guest) -> bool:
    """Returns whether kernel and initrd are unchanged: their digest is the image's id."""
    digest = hashlib.sha256()
    try:
        for file in (image.kernel, image.initrd):
            digest.update(file.read_bytes())
    except OSError:
        return False
    return digest.hexdigest()[:16] == image.id


def find(cache: Path, prefix: str) -> Guest:
    """Returns the image whose id begins with `prefix`.

    Raises:
        ImageError: no image or more than one matches.
    """
    found = [image for image in images(cache) if image.id.startswith(prefix)]
    if len(found) != 1:
        known = ", ".join(image.id for image in images(cache)) or "none"
        raise ImageError(
            f"{len(found) or 'no'} guest images begin with {prefix!r}; there are: {known}"
        )
    return found[0]


def images(cache: Path) -> tuple[Guest, ...]:
    """Returns all images, the current one first; skips folders that are no image."""
    folder = cache / "guest"
    pointer = folder / _CURRENT
    chosen = pointer.read_text().strip() if pointer.exists() else ""
    found = [_read(path, chosen) for path in sorted(folder.glob(f"*/{_MANIFEST}"))]
    return tuple(sorted(found, key=lambda image: not image.is_current))


def missing() -> list[tuple[str, str, str]]:
    """Returns (what is missing, remedy, command) for each missing requirement of a build."""
    found = []
    needs: tuple[tuple[Callable[[], Path], str], ...] = (
        (functools.partial(programs.find, "crun", "crun"), "crun"),
        (agent_program.find_cargo, "cargo-web rustc-web"),
        (functools.partial(programs.find, "cc", "gcc"), "gcc libc6-dev"),
    )
    for need, packages in needs:
        try:
            need()
        except ImageError as error:
            detail, _, remedy = str(error).partition("; ")
            found.append((detail, remedy, f"apt-get install -y --no-install-recommends {packages}"))
    return found


def remove(cache: Path, prefix: str) -> Guest:
    """Deletes one image.

    Raises:
        ImageError: as `find`.
    """
    with _locked(cache):
        image = find(cache, prefix)
        if image.is_current:
            (cache / "guest" / _CURRENT).unlink()
        shutil.rmtree(cache / "guest" / image.id)
    return image


def _initrd(source: kernel.Kernel, agent: Path, crun: Path) -> bytes:
    archive = Archive()
    for folder in ("/dev", "/proc", "/sys", "/run", "/tmp", "/etc"):
        archive.add_folder(folder)
    archive.add_file("/init", agent.read_bytes(), 0o755)
    archive.add_file("/bin/crun", crun.read_bytes(), 0o755)
    for path, content in programs.with_libraries(crun).items():
        archive.add_file(path, content, 0o755)
    for name, content in modules.collect(source.modules).items():
        archive.add_file(f"/lib/modules/{name}", content)
    return archive.to_bytes()


def _store(cache: Path, files: dict[str, bytes], release: str, inputs: dict[str, str]) -> str:
    digest = hashlib.sha256(files["vmlinux"])
    digest.update(files["initrd"])
    identity = digest.hexdigest()[:16]
    manifest = {"schema": SCHEMA, "id": identity, "release": release, "inputs": inputs}
    folder = cache / "guest"
    half = Path(tempfile.mkdtemp(prefix=".half-", dir=folder))
    try:
        for name, content in files.items():
            (half / name).write_bytes(content)
        (half / _MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")
        half.chmod(0o755)  # other users start images that root has built, with any umask
        for name, mode in (
            ("vmlinux", 0o644),
            ("initrd", 0o644),
            (_FILTER, 0o644),
            (_MANIFEST, 0o644),
            (_PROGRAM, 0o755),
            (_STAND_IN, 0o755),
        ):
            if (half / name).exists():
                (half / name).chmod(mode)
        with contextlib.suppress(FileExistsError):
            target = folder / identity
            if target.exists():  # the same content from other inputs; or it was damaged
                for file in half.iterdir():
                    file.replace(target / file.name)
            else:
                half.rename(target)
    finally:
        shutil.rmtree(half, ignore_errors=True)
    return identity


def _make_current(cache: Path, identity: str) -> Guest:
    pointer = cache / "guest" / _CURRENT
    half = pointer.with_name(f".{_CURRENT}.{os.getpid()}")
    half.write_text(identity + "\n")
    half.chmod(0o644)
    half.replace(pointer)
    return current(cache)


def _read(manifest: Path, chosen: str) -> Guest:
    folder = manifest.parent
    told = json.loads(manifest.read_text())
    kernel_file, initrd, program, filter_file, stand_in = files = tuple(
        folder / name for name in ("vmlinux", "initrd", _PROGRAM, _FILTER, _STAND_IN)
    )
    size = sum(file.stat().st_size for file in files if file.exists())
    found = program if program.exists() else None
    is_current = told["id"] == chosen
    known = filter_file.read_bytes() if is_current and filter_file.exists() else b""
    return Guest(
        told["id"],
        kernel_file,
        initrd,
        found,
        told["release"],
        told["inputs"],
        size,
        is_current,
        known,
        stand_in if stand_in.exists() else None,
    )


@contextlib.contextmanager
def _locked(cache: Path) -> Iterator[None]:
    folder = agent_program.readable_folder(cache / "guest")
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]
