"""Images that are made from the distribution's packages, where there is no registry."""

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
_OF_THIS_HOST = ("etc/hostname", "etc/resolv.conf")  # which debootstrap copies


def busybox() -> Source:
    """A shell and the usual tools in one program of the host's, two megabytes.

    Raises:
        ImageError: the host has no busybox, or one that needs libraries.
    """
    found = find_program("busybox")
    # The interpreter's path stands right behind the program headers: elf(5), PT_INTERP.
    if found is None or b"/ld-" in Path(found).read_bytes()[:_HEAD]:
        raise ImageError(
            "there is no static busybox on this host; 'apt-get install busybox-static'"
        )
    program = Path(found)

    async def fill(tree: Path, progress: Progress) -> None:
        progress("making busybox")
        for name in ("bin", "etc", "root", "usr", "var"):
            (tree / name).mkdir()
        for name in ("sbin", "usr/bin", "usr/sbin"):
            (tree / name).symlink_to("/bin")
        shutil.copy2(program, tree / "bin/busybox")
        listed = await asyncio.create_subprocess_exec(
            program, "--list", stdout=asyncio.subprocess.PIPE, env=program_environment()
        )
        output, _ = await listed.communicate()
        for applet in output.decode().split():
            if applet != "busybox":
                (tree / "bin" / applet).symlink_to("busybox")
        (tree / "etc/passwd").write_text(_PASSWD)
        (tree / "etc/group").write_text(_GROUP)

    return Made("busybox", ImageConfig(cmd=("sh",)), fill)


def debian(suite: str = "", mirror: str = "", include: tuple[str, ...] = ()) -> Source:
    """A minimal Debian, by debootstrap, from the mirror that this host uses.

    Args:
        suite: as "bookworm"; the host's own when empty.
        mirror: its address; the one that apt is set up with when empty.
        include: more packages.
    """

    async def fill(tree: Path, progress: Progress) -> None:
        there = await _mirror()
        chosen, address = suite or there[1], mirror or there[0]
        progress(f"debootstrap {chosen}")
        more = (f"--include={','.join(include)}",) if include else ()
        await programs.run(
            "debootstrap",
            "--variant=minbase",
            *more,
            chosen,
            tree,
            address,
            told=lambda line: progress(line.removeprefix("I: ")),
        )
        for name in _OF_THIS_HOST:
            (tree / name).unlink(missing_ok=True)
        for folder in ("var/cache/apt/archives", "var/lib/apt/lists"):
            for file in (tree / folder).glob("*"):
                if file.is_file():
                    file.unlink()

    return Made(" ".join(("debian", suite, mirror, *include)), ImageConfig(cmd=("bash",)), fill)


async def _mirror() -> tuple[str, str]:
    """Where apt gets this host's packages, and of which suite: apt-get(8), indextargets."""
    words = ("indextargets", "--format", "$(REPO_URI) $(RELEASE)", "Created-By: Packages")
    apt = find_program("apt-get")
    if apt is None:
        raise ImageError(
            "apt-get is not installed here, which knows a mirror; give --mirror and --suite"
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
        raise ImageError("apt on this host names no mirror; give --mirror and --suite")
    address, _, suite = lines[0].partition(" ")
    return address, suite
