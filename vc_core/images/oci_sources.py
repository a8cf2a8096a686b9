"""Images from OCI layouts, and from what skopeo can copy into one."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Callable
from pathlib import Path

from vc_core.images import layout, programs
from vc_core.images.image import ImageError, Progress
from vc_core.images.platforms import Platform, of_machine, require
from vc_core.images.source import TREE, Material, Source, place_key

_POLICY = Path("/etc/containers/policy.json")


class OciLayout(Source):
    """A folder as image-layout.md of the image-spec has it."""

    def __init__(
        self, folder: Path, tag: str = "", platform: Platform | None = None, name: str = ""
    ) -> None:
        """Args:
        folder: the layout.
        tag: which image of it; may be empty when there is only one.
        platform: the kind of machine it must be for; None for this machine's.
        name: what messages call it; its path by default.
        """
        self.key = place_key(f"oci:{folder}:{tag}", platform)
        self._name = name or str(folder)
        self.platform = platform
        self._folder = folder
        self._tag = tag

    async def config_digest(self) -> str:
        return (
            await asyncio.to_thread(layout.find, self._folder, self._tag, self.platform, self._name)
        ).config_digest

    async def fetch(self, into: Path, progress: Progress) -> Material:
        found = await asyncio.to_thread(
            layout.find, self._folder, self._tag, self.platform, self._name
        )
        require(found.config, self.platform, self._name)
        await asyncio.to_thread(layout.check, found, progress)
        staged, tree = into / "staged", into / TREE
        await layout.stage(found, staged, progress)
        progress("unpacking")
        rootless = () if os.geteuid() == 0 else ("--rootless",)
        await programs.run("umoci", "raw", "unpack", *rootless, "--image", f"{staged}:image", tree)
        config = self._folder / "blobs/sha256" / found.config_digest
        return Material(config.read_bytes(), tree)


# What skopeo and registries say, and what helps.
_REMEDIES = {
    "server gave HTTP response to HTTPS client": "'--insecure' asks it without",
    "x509:": "'--insecure' believes it",
    "unauthorized": "'skopeo login' stores credentials",
    "authentication required": "'skopeo login' stores credentials",
    "no image found in": "'--platform' chooses one that it has",
}


async def _skopeo(*words: str, told: Callable[[str], None] | None = None) -> bytes:
    try:
        return await programs.run("skopeo", *_policy(), *words, told=told)
    except ImageError as error:
        for sign, remedy in _REMEDIES.items():
            if sign in str(error):
                raise ImageError(f"{error}; {remedy}") from error
        raise


class Copied(Source):
    """Whatever skopeo can copy: images of registries, docker archives that are not compressed."""

    def __init__(
        self,
        reference: str,
        insecure: bool = False,
        platform: Platform | None = None,
        name: str = "",
    ) -> None:
        self._name = name or reference.removeprefix("docker://")
        self.key = place_key(reference, platform)
        self.platform = platform
        self._reference = reference
        wanted = platform or of_machine()
        self._overrides: tuple[str, ...] = (
            "--override-os=linux",
            f"--override-arch={wanted.architecture}",
        )
        if wanted.variant:
            self._overrides += (f"--override-variant={wanted.variant}",)
        self._tls = ("--src-tls-verify=false",) if insecure else ()
        self._inspect_tls = ("--tls-verify=false",) if insecure else ()

    async def config_digest(self) -> str:
        words = (
            *self._overrides,
            "inspect",
            "--config",
            "--raw",
            *self._inspect_tls,
            self._reference,
        )
        return hashlib.sha256(await _skopeo(*words)).hexdigest()

    async def fetch(self, into: Path, progress: Progress) -> Material:
        progress("fetching")
        copied = into / "copied"
        words = (*self._overrides, "copy", *self._tls, self._reference, f"oci:{copied}:image")
        await _skopeo(*words, told=lambda line: progress(_shortened(line)))
        return await OciLayout(copied, "image", self.platform, self._name).fetch(into, progress)


def _policy() -> tuple[str, ...]:
    """Which signatures must be there is for the host to say; where it says nothing, none must."""
    return () if _POLICY.exists() else ("--insecure-policy",)


def _shortened(line: str) -> str:
    """A line of skopeo with at most twelve digits of a digest."""
    head, colon, digest = line.partition("sha256:")
    return f"fetching: {head}{digest[:12]}" if colon else f"fetching: {line}"
