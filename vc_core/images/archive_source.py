"""Images from tar archives, of images or of a root file system."""

from __future__ import annotations

import asyncio
import secrets
from pathlib import Path

from vc_core.images import archives, layout, programs
from vc_core.images.archives import ArchiveFormat
from vc_core.images.image import ImageConfig, ImageError, Progress
from vc_core.images.oci_sources import Copied, OciLayout
from vc_core.images.platforms import Platform
from vc_core.images.rootfs_sources import XATTRS, configured, digest_of
from vc_core.images.source import TREE, Material, Source, place_key
from vc_core.spec.errors import InvalidRequest

STDIN = 0
"""The file descriptor of standard input."""


class Archive(Source):
    """A tar archive, compressed or not, of images or of a root file system.

    Args:
        file: the archive; None for standard input.
        tag: selects an image of an archive with several.
        config: configuration of a root file system.
        format: format of the archive; None to detect it.
        platform: platform of the image; None for that of this machine.
    """

    def __init__(
        self,
        file: Path | None,
        tag: str = "",
        config: ImageConfig | None = None,
        format: ArchiveFormat | None = None,  # noqa: A002 (the option's name)
        platform: Platform | None = None,
    ) -> None:
        name = f"stdin:{secrets.token_hex(8)}" if file is None else f"archive:{file}"
        self.key = place_key(f"{name}:{tag}" if tag else name, platform)
        self.platform = platform
        self._file = file
        self._name = "standard input" if file is None else str(file)
        self._tag = tag
        self._config = config
        self._format = format

    async def fetch(self, into: Path, progress: Progress) -> Material:
        progress("reading")
        file = await self._plain(into, progress)
        contents = await asyncio.to_thread(archives.examine, file, self._name)
        kind = self._format or contents.format
        if kind is None:
            raise InvalidRequest(
                f"{self._name} is neither an image archive nor a root file system with bin or usr; "
                f"it has: {', '.join(contents.names) or 'nothing'}; "
                "use '--format rootfs' to import it as a root file system"
            )
        if kind is ArchiveFormat.ROOTFS:
            return await self._root(file, into, progress)
        if self._config is not None and self._config != ImageConfig():
            raise InvalidRequest(
                f"{self._name} is an image with a configuration; "
                "remove the options that set one, such as --cmd"
            )
        if kind is ArchiveFormat.OCI:
            folder = into / "layout"
            await _unpack_layout(file, folder, self._name)
            return await OciLayout(folder, self._tag, self.platform, self._name).fetch(
                into, progress
            )
        link = into / "archive"  # a path without a colon, which would end the path for skopeo
        link.symlink_to(file)
        number = archives.chosen(contents, self._tag, self._name)
        reference = f"docker-archive:{link}:@{number}"
        return await Copied(reference, platform=self.platform, name=self._name).fetch(
            into, progress
        )

    async def _plain(self, into: Path, progress: Progress) -> Path:
        """Return the archive as an uncompressed file."""
        file = self._file
        if file is None:
            file = into / "stdin"
            await programs.run("cat", output=file, stdin=STDIN)
        try:
            if await asyncio.to_thread(archives.compression, file):
                progress("decompressing")
            return await archives.decompress(file, into / "plain.tar")
        except OSError as error:
            raise ImageError(f"{self._name} cannot be read: {error.strerror}") from error

    async def _root(self, file: Path, into: Path, progress: Progress) -> Material:
        if self._tag:
            raise InvalidRequest(
                f"{self._name} is a root file system, which has no tags; remove --tag"
            )
        digest = await asyncio.to_thread(digest_of, file)
        progress("unpacking")
        tree = into / TREE
        tree.mkdir()
        await programs.run("tar", "-x", "-p", *XATTRS, "-f", file, "-C", tree)
        return Material(configured(self._config or ImageConfig(), digest, self.platform), tree)


async def _unpack_layout(archive: Path, folder: Path, name: str) -> None:
    """Unpack an OCI archive of files and directories only, as links could lead out of it."""
    folder.mkdir()
    words = ("--no-same-owner", "--no-same-permissions", "--delay-directory-restore")
    await programs.run("tar", "-x", *words, "-f", archive, "-C", folder)
    for path in folder.rglob("*"):
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise ImageError(
                f"{name} is not an OCI archive: "
                f"{path.relative_to(folder)} is neither a file nor a directory"
            )
    if not layout.is_layout(folder):
        raise ImageError(f"{name} is not an OCI archive: it has no oci-layout")
