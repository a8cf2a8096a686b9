"""Images from files without an image configuration, which is generated."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from vc_core.images import programs
from vc_core.images.image import ImageConfig, ImageError, Progress
from vc_core.images.platforms import Platform, of_machine
from vc_core.images.source import TREE, Material, Source, place_key

XATTRS = ("--xattrs", "--xattrs-include=*", "--numeric-owner", "--sparse")
_SAME = ("--sort=name", "--pax-option=exthdr.name=%d/%f,delete=atime,delete=ctime")


class Folder(Source):
    """A directory with the files of a root file system."""

    def __init__(self, folder: Path, config: ImageConfig, platform: Platform | None = None) -> None:
        self.key = place_key(f"folder:{folder}", platform)
        self.platform = platform
        self._folder = folder
        self._config = config

    async def fetch(self, into: Path, progress: Progress) -> Material:
        progress("copying")
        archive, tree = into / "tree.tar", into / TREE
        tree.mkdir()
        digest = await _pack(self._folder, archive, "--one-file-system")
        await programs.run("tar", "-x", "-p", *XATTRS, "-f", archive, "-C", tree)
        archive.unlink()
        return Material(configured(self._config, digest, self.platform), tree)


class Made(Source):
    """A root file system that a function creates in an empty directory."""

    def __init__(
        self,
        key: str,
        config: ImageConfig,
        fill: Callable[[Path, Progress], Coroutine[Any, Any, None]],
    ) -> None:
        self.key = f"made:{key}"
        self._config = config
        self._fill = fill

    async def fetch(self, into: Path, progress: Progress) -> Material:
        tree = into / TREE
        tree.mkdir()
        await self._fill(tree, progress)
        digest = await _pack(tree, into / "tree.tar", "--mtime=@0")
        return Material(configured(self._config, digest), tree)


def configured(config: ImageConfig, digest: str, platform: Platform | None = None) -> bytes:
    """Generate an image configuration (config.md of the image-spec) for files of this digest."""
    wanted = platform or of_machine()
    document = {
        "architecture": wanted.architecture,
        **({"variant": wanted.variant} if wanted.variant else {}),
        "os": "linux",
        "config": config.document(),
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
    }
    return json.dumps(document, sort_keys=True).encode()


async def _pack(folder: Path, archive: Path, *words: str) -> str:
    """Pack a directory reproducibly, and return the digest of the archive."""
    await programs.run("tar", "-c", *_SAME, *XATTRS, *words, "-f", archive, "-C", folder, ".")
    return await asyncio.to_thread(digest_of, archive)


def digest_of(file: Path) -> str:
    """The SHA-256 of a file, in hex.

    Raises:
        ImageError: it cannot be read.
    """
    try:
        with file.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise ImageError(f"{file} cannot be read: {error.strerror}") from error
