"""Builds guest images in the cache folder, once per content; none is overwritten.

Imported only to build one: finding one is cache.py's, which each start of a pod does.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from vc_agent_grpc import seccomp
from vc_agent_grpc.image import agent_program, kernel, modules, programs, seccomp_program
from vc_agent_grpc.image.cache import (
    AGENT,
    FILTER,
    MANIFEST,
    STAND_IN,
    Guest,
    images,
    is_whole,
    locked,
    make_current,
)
from vc_agent_grpc.image.cpio import Archive
from vc_agent_grpc.image.errors import ImageError
from vc_agent_grpc.image.vmlinux import extract_vmlinux
from vc_core.spec import DEFAULT_CAPABILITIES

SCHEMA = 3

Report = Callable[[str], None]


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
    program = agent or agent_program.built(cache, report) / AGENT
    stand_in = program.with_name(STAND_IN)
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
    with locked(cache):
        for image in images(cache):
            if image.inputs == inputs and is_whole(image):
                return make_current(cache, image.id)
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
                AGENT: program.read_bytes(),
                FILTER: seccomp_program.compiled(container_filter),
            }
            if stand_in.exists():
                files[STAND_IN] = stand_in.read_bytes()
            about: dict[str, object] = {
                "release": source.release,
                "inputs": inputs,
                "stand_in_options": agent_program.stand_in_options(stand_in),
            }
            return make_current(cache, _store(cache, files, about))


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


def _store(cache: Path, files: dict[str, bytes], about: dict[str, object]) -> str:
    digest = hashlib.sha256(files["vmlinux"])
    digest.update(files["initrd"])
    identity = digest.hexdigest()[:16]
    manifest = {"schema": SCHEMA, "id": identity, **about}
    folder = cache / "guest"
    half = Path(tempfile.mkdtemp(prefix=".half-", dir=folder))
    try:
        for name, content in files.items():
            (half / name).write_bytes(content)
        (half / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")
        half.chmod(0o755)  # other users start images that root has built, with any umask
        for name, mode in (
            ("vmlinux", 0o644),
            ("initrd", 0o644),
            (FILTER, 0o644),
            (MANIFEST, 0o644),
            (AGENT, 0o755),
            (STAND_IN, 0o755),
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


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]
