"""Images from OCI layouts, and from sources that skopeo copies into one."""

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
    """A directory in the format of image-layout.md of the image-spec."""

    def __init__(
        self, folder: Path, tag: str = "", platform: Platform | None = None, name: str = ""
    ) -> None:
        """Make a source.

        Args:
            folder: directory of the layout.
            tag: selects an image of a layout with several.
            platform: platform of the image; None for that of this machine.
            name: name of the layout for messages; empty for its path.
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
        image = await asyncio.to_thread(
            layout.find, self._folder, self._tag, self.platform, self._name
        )
        require(image.config, self.platform, self._name)
        await asyncio.to_thread(layout.check, image, progress)
        staged, tree = into / "staged", into / TREE
        await layout.stage(image, staged, progress)
        progress("unpacking")
        rootless = () if os.geteuid() == 0 else ("--rootless",)
        await programs.run("umoci", "raw", "unpack", *rootless, "--image", f"{staged}:image", tree)
        config = self._folder / "blobs/sha256" / image.config_digest
        return Material(config.read_bytes(), tree)


# Errors of skopeo and registries, and remedies.
_REMEDIES = {
    "server gave HTTP response to HTTPS client": "use --insecure for plain HTTP",
    "x509:": "use --insecure to accept its certificate",
    "unauthorized": "use 'skopeo login' to store credentials",
    "authentication required": "use 'skopeo login' to store credentials",
    "no image found in": "select another platform with --platform",
}


async def _skopeo(*words: str, on_line: Callable[[str], None] | None = None) -> bytes:
    try:
        return await programs.run("skopeo", *_policy(), *words, on_line=on_line)
    except ImageError as error:
        for sign, remedy in _REMEDIES.items():
            if sign in str(error):
                raise ImageError(f"{error}; {remedy}") from error
        raise


class Copied(Source):
    """A source that skopeo can copy, such as a registry or an uncompressed Docker archive."""

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
        await _skopeo(*words, on_line=lambda line: progress(_shortened(line)))
        return await OciLayout(copied, "image", self.platform, self._name).fetch(into, progress)


def _policy() -> tuple[str, ...]:
    """Require the signatures that the policy of the host requires; without a policy, none."""
    return () if _POLICY.exists() else ("--insecure-policy",)


def _shortened(line: str) -> str:
    """Shorten the digest in a line of skopeo to twelve digits."""
    head, colon, digest = line.partition("sha256:")
    return f"fetching: {head}{digest[:12]}" if colon else f"fetching: {line}"
