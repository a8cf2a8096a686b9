"""Builds images from packages of the distribution, without a registry."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

from vc_core.driver_kit.programs import find_program, program_environment
from vc_core.images import programs
from vc_core.images.image import ImageConfig, ImageError, Progress
from vc_core.images.rootfs_sources import Made
from vc_core.images.source import Source

_PASSWD = "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n"  # noqa: S105 (no password is in it)
_GROUP = "root:x:0:\nnogroup:x:65534:\n"
_HEAD = 4096
_OF_THIS_HOST = ("etc/hostname", "etc/resolv.conf")  # copied by debootstrap


def busybox() -> Source:
    """An image of the host's static busybox: a shell and the usual tools in two megabytes.

    Raises:
        ImageError: the host has no static busybox.
    """
    path = find_program("busybox")
    # The interpreter's path stands right behind the program headers: elf(5), PT_INTERP.
    if path is None or b"/ld-" in Path(path).read_bytes()[:_HEAD]:
        raise ImageError("this host has no static busybox; run 'apt-get install busybox-static'")
    program = Path(path)

    async def fill(tree: Path, progress: Progress) -> None:
        progress("building busybox")
        for name in ("bin", "etc", "root", "usr", "var"):
            (tree / name).mkdir()
        for name in ("sbin", "usr/bin", "usr/sbin"):
            (tree / name).symlink_to("/bin")
        shutil.copy2(program, tree / "bin/busybox")
        listing = await asyncio.create_subprocess_exec(
            program, "--list", stdout=asyncio.subprocess.PIPE, env=program_environment()
        )
        output, _ = await listing.communicate()
        for applet in output.decode().split():
            if applet != "busybox":
                (tree / "bin" / applet).symlink_to("busybox")
        (tree / "etc/passwd").write_text(_PASSWD)
        (tree / "etc/group").write_text(_GROUP)

    return Made("busybox", ImageConfig(cmd=("sh",)), fill)


def debian(suite: str = "", mirror: str = "", include: tuple[str, ...] = ()) -> Source:
    """An image of a minimal Debian, built with debootstrap.

    Args:
        suite: for example "bookworm"; empty for the suite of the host.
        mirror: URL; empty for the mirror of the host's apt.
        include: additional packages.
    """

    async def fill(tree: Path, progress: Progress) -> None:
        host_mirror, host_suite = await _mirror()
        chosen, address = suite or host_suite, mirror or host_mirror
        progress(f"debootstrap {chosen}")
        more = (f"--include={','.join(include)}",) if include else ()
        await programs.run(
            "debootstrap",
            "--variant=minbase",
            *more,
            chosen,
            tree,
            address,
            on_line=lambda line: progress(line.removeprefix("I: ")),
        )
        for name in _OF_THIS_HOST:
            (tree / name).unlink(missing_ok=True)
        for folder in ("var/cache/apt/archives", "var/lib/apt/lists"):
            for file in (tree / folder).glob("*"):
                if file.is_file():
                    file.unlink()

    return Made(" ".join(("debian", suite, mirror, *include)), ImageConfig(cmd=("bash",)), fill)


async def _mirror() -> tuple[str, str]:
    """Mirror and suite of the host's apt: apt-get(8), indextargets."""
    words = ("indextargets", "--format", "$(REPO_URI) $(RELEASE)", "Created-By: Packages")
    apt = find_program("apt-get")
    if apt is None:
        raise ImageError(
            "the mirror is unknown, as apt-get is not installed; give --mirror and --suite"
        )
    asked = await asyncio.create_subprocess_exec(
        apt,
        *words,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        env=program_environment(),
    )
    output, _ = await asked.communicate()
    lines = output.decode().splitlines()
    if not lines:
        raise ImageError("the apt of this host has no mirror; give --mirror and --suite")
    address, _, suite = lines[0].partition(" ")
    return address, suite
