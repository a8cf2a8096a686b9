"""Provides the guest's kernel: from a path, or unpacked from the distribution's package."""

from __future__ import annotations

import hashlib
import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from msgspec import Struct

from vc_agent_grpc.image.errors import ImageError
from vc_core.driver_kit import find_program, program_environment

PACKAGE = "linux-image-amd64"
Report = Callable[[str], None]


class _Failed(ImageError):
    """A program ended with an error."""


class Kernel(Struct, frozen=True):
    """A kernel image and its modules, with a fingerprint.

    Attributes:
        image: compressed or not.
        modules: its `lib/modules/<release>` folder.
    """

    image: Path
    modules: Path

    @property
    def release(self) -> str:
        """The release, as printed by `uname -r`."""
        return self.modules.name


def from_paths(image: Path, modules: Path | None) -> Kernel:
    """Returns a kernel of this host.

    Args:
        image: `vmlinuz-<release>` or `vmlinux-<release>`.
        modules: its folder; derived from the image's name when None.

    Raises:
        ImageError: a file is missing or unreadable.
    """
    folder = modules or Path("/lib/modules") / image.name.partition("-")[2]
    if not image.is_file() or not os.access(image, os.R_OK):
        raise ImageError(
            f"the kernel {image} is missing or not readable; name another with --kernel"
        )
    if not (folder / "modules.builtin").is_file():
        raise ImageError(f"{folder} has no kernel modules; give their directory with --modules")
    return Kernel(image, folder)


def fingerprint(image: Path | None, modules: Path | None) -> str:
    """Returns a text that changes with the kernel and is cheap to compute."""
    if image is None:
        return f"package {_package_version()}"
    kernel = from_paths(image, modules)
    digest = hashlib.sha256(image.read_bytes()).hexdigest()
    return f"file {digest} {kernel.modules}"


@contextmanager
def fetched(report: Report) -> Iterator[Kernel]:
    """Downloads and unpacks the distribution's kernel package into a temporary folder for a block.

    Raises:
        ImageError: apt or dpkg-deb is missing or failed.
    """
    name = _package_version().partition("=")[0]
    with tempfile.TemporaryDirectory(prefix="vc-kernel-") as temporary:
        report(f"downloading the package {name} (70 MB)")
        sandbox = ["-o", "APT::Sandbox::User=root"] if os.geteuid() == 0 else []
        _run([_tool("apt-get", "apt"), "-q", *sandbox, "download", name], temporary)
        (package,) = Path(temporary).glob("*.deb")
        report(f"unpacking {package.name}")
        _run([_tool("dpkg-deb", "dpkg"), "-x", package.name, "."], temporary)
        (image,) = Path(temporary, "boot").glob("vmlinuz-*")
        release = image.name.partition("-")[2]
        trees = [
            Path(temporary, "lib/modules", release),
            Path(temporary, "usr/lib/modules", release),
        ]
        yield Kernel(image, next(tree for tree in trees if tree.is_dir()))


def _package_version() -> str:
    """Returns the real package behind PACKAGE, as `name=version`."""
    unknown = (
        f"no package list knows {PACKAGE}; run 'apt-get update', or name a kernel with --kernel, "
        "--modules"
    )
    try:
        depends = _run([_tool("apt-cache", "apt"), "depends", "--important", PACKAGE], "/")
    except _Failed as error:
        raise ImageError(unknown) from error
    names = [
        line.partition("Depends:")[2].strip() for line in depends.splitlines() if "Depends:" in line
    ]
    real = next((name for name in names if name.startswith("linux-image-")), None)
    if real is None:
        raise ImageError(unknown)
    policy = _run([_tool("apt-cache", "apt"), "policy", real], "/")
    version = next(
        (line.split()[1] for line in policy.splitlines() if "Candidate:" in line), "(none)"
    )
    return f"{real}={version}"


def _tool(name: str, package: str) -> str:
    found = find_program(name)
    if found is None:
        raise ImageError(
            f"{name} is missing; install the package {package}, "
            "or name a kernel with --kernel and --modules"
        )
    return found


def _run(command: list[str], folder: str) -> str:
    environment = {**program_environment(), "LC_ALL": "C"}
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, check=False, env=environment
    )
    if done.returncode != 0:
        last = (done.stderr or done.stdout).strip().splitlines()[-1:]
        raise _Failed(
            f"'{' '.join(command)}' failed: {''.join(last) or f'exit code {done.returncode}'}"
        )
    return done.stdout
