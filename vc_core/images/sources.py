"""Where an image can come from.

Each kind of source brings the image's configuration and its tree of files.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import secrets
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vc_core.images import archives, layout, programs
from vc_core.images.archives import ArchiveFormat
from vc_core.images.image import ImageConfig, ImageError, Progress
from vc_core.images.platforms import Platform, of_machine, require
from vc_core.spec.errors import InvalidRequest

_POLICY = Path("/etc/containers/policy.json")
_XATTRS = ("--xattrs", "--xattrs-include=*", "--numeric-owner", "--sparse")
_SAME = ("--sort=name", "--pax-option=exthdr.name=%d/%f,delete=atime,delete=ctime")
_OF_IMAGES = ("oci-layout", "index.json", "manifest.json")
_TREE = "tree"
_STDIN = 0


@dataclass(frozen=True)
class Material:
    """What an image is made of.

    Attributes:
        config: its configuration as it came, whose digest is the image's id.
        tree: its files.
    """

    config: bytes
    tree: Path


class Source(ABC):
    """A place to get one image from.

    Attributes:
        key: of the place: two that are alike bring the same.
        platform: the kind of machine that the image must be for; None for this machine's.
    """

    key: str
    platform: Platform | None = None

    async def config_digest(self) -> str:
        """The image's id, where that is to be had without fetching it; else empty."""
        return ""

    @abstractmethod
    async def fetch(self, into: Path, progress: Progress) -> Material:
        """Brings it. Raises ImageError, or InvalidRequest for what is no image.

        Args:
            into: an empty folder for whatever is needed on the way; somebody else removes it.
            progress: is told.
        """


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
        self.key = _key(f"oci:{folder}:{tag}", platform)
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
        staged, tree = into / "staged", into / _TREE
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
        self.key = _key(reference, platform)
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


class Archive(Source):
    """A tar archive, compressed or not: of images, or of the files of a root file system.

    Args:
        file: the archive; None for standard input.
        tag: which image of an archive that has several.
        config: for a root file system, which has none of its own.
        format: what it holds; None to find out.
        platform: for which machine; None for this one.
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
        self.key = _key(f"{name}:{tag}" if tag else name, platform)
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
                f"{self._name} is no archive of an image, and no root file system with a folder bin or usr; it has: "
                f"{', '.join(contents.names) or 'nothing'}; if it is one, '--format rootfs' says so"
            )
        if kind is ArchiveFormat.ROOTFS:
            return await self._root(file, into, progress)
        if self._config is not None and self._config != ImageConfig():
            raise InvalidRequest(
                f"{self._name} is an image with a configuration of its own; leave --cmd and the like away"
            )
        if kind is ArchiveFormat.OCI:
            folder = into / "layout"
            await _unpack_layout(file, folder, self._name)
            return await OciLayout(folder, self._tag, self.platform, self._name).fetch(
                into, progress
            )
        link = into / "archive"  # whose name has no colon, which ends a path for skopeo
        link.symlink_to(file)
        number = archives.chosen(contents, self._tag, self._name)
        reference = f"docker-archive:{link}:@{number}"
        return await Copied(reference, platform=self.platform, name=self._name).fetch(
            into, progress
        )

    async def _plain(self, into: Path, progress: Progress) -> Path:
        """The archive as a file that is not compressed."""
        file = self._file
        if file is None:
            file = into / "stdin"
            await programs.run("cat", output=file, stdin=_STDIN)
        try:
            if await asyncio.to_thread(archives.compression, file):
                progress("decompressing")
            return await archives.decompress(file, into / "plain.tar")
        except OSError as error:
            raise ImageError(f"{self._name} cannot be read: {error.strerror}") from error

    async def _root(self, file: Path, into: Path, progress: Progress) -> Material:
        if self._tag:
            raise InvalidRequest(
                f"{self._name} is a root file system, which has no tag {self._tag!r}"
            )
        digest = await asyncio.to_thread(_digest_of, file)
        progress("unpacking")
        tree = into / _TREE
        tree.mkdir()
        await programs.run("tar", "-x", "-p", *_XATTRS, "-f", file, "-C", tree)
        return Material(_configured(self._config or ImageConfig(), digest, self.platform), tree)


async def _unpack_layout(archive: Path, folder: Path, name: str) -> None:
    """An OCI archive into a new folder.

    It holds files and folders only: a link could lead out of it.
    """
    folder.mkdir()
    words = ("--no-same-owner", "--no-same-permissions", "--delay-directory-restore")
    await programs.run("tar", "-x", *words, "-f", archive, "-C", folder)
    for path in folder.rglob("*"):
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise ImageError(
                f"{name} is no OCI archive: {path.relative_to(folder)} in it is no file and no folder"
            )
    if not layout.is_layout(folder):
        raise ImageError(f"{name} is no OCI archive: it has no oci-layout")


class Folder(Source):
    """The files of a root file system as they lie there."""

    def __init__(self, folder: Path, config: ImageConfig, platform: Platform | None = None) -> None:
        self.key = _key(f"folder:{folder}", platform)
        self.platform = platform
        self._folder = folder
        self._config = config

    async def fetch(self, into: Path, progress: Progress) -> Material:
        progress("copying")
        archive, tree = into / "tree.tar", into / _TREE
        tree.mkdir()
        digest = await _archive(self._folder, archive, "--one-file-system")
        await programs.run("tar", "-x", "-p", *_XATTRS, "-f", archive, "-C", tree)
        archive.unlink()
        return Material(_configured(self._config, digest, self.platform), tree)


class Made(Source):
    """A root file system that is made here, by a function that fills an empty folder."""

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
        tree = into / _TREE
        tree.mkdir()
        await self._fill(tree, progress)
        digest = await _archive(tree, into / "tree.tar", "--mtime=@0")
        return Material(_configured(self._config, digest), tree)


def of_path(
    path: Path,
    tag: str = "",
    config: ImageConfig | None = None,
    format: ArchiveFormat | None = None,  # noqa: A002 (the option's name)
    platform: Platform | None = None,
) -> Source:
    """What lies at a path: an OCI layout, an archive of images, a tarball of files or a folder of files.

    Args:
        path: of the host; "-" for an archive on standard input.
        tag: which image of a layout or archive.
        config: for a tarball or folder, which have none of their own.
        format: what an archive holds, where that is not to be found out.
        platform: the kind of machine it must be for; None for this machine's.

    Raises:
        InvalidRequest: there is nothing, or nothing of this kind; or a configuration was given for what has one. What
            an archive holds is found when it is fetched.
    """
    if str(path) == "-":
        if os.isatty(_STDIN):
            raise InvalidRequest(
                "'-' reads an archive from standard input, which is a terminal; pipe one into it"
            )
        return Archive(None, tag, config, format, platform)
    path = path.absolute()
    if not path.exists():
        raise InvalidRequest(f"there is no {path}; 'vc image pull' fetches from a registry")
    if not path.is_dir():
        return Archive(path, tag, config, format, platform)
    if format is not None and format is not ArchiveFormat.ROOTFS:
        raise InvalidRequest(
            f"{path} is a folder, and {format} is a format of files; leave --format away"
        )
    if layout.is_layout(path) and format is None:
        if config is not None and config != ImageConfig():
            raise InvalidRequest(
                f"{path} is an image with a configuration of its own; leave --cmd and the like away"
            )
        return OciLayout(path, tag, platform)
    if format is None and (
        found := next((one for one in _OF_IMAGES if (path / one).is_file()), "")
    ):
        raise InvalidRequest(
            f"{path} has a file {found}, as unpacked archives of images have; import the archive, "
            "or '--format rootfs' if these are the files of a root file system"
        )
    if tag:
        raise InvalidRequest(f"{path} is a folder of files, which has no tag {tag!r}")
    return Folder(path, config or ImageConfig(), platform)


def of_reference(
    reference: str, insecure: bool = False, platform: Platform | None = None
) -> Source:
    """An image of a registry, or what another word before the first colon says as skopeo has it.

    Raises:
        InvalidRequest: it cannot be a reference.
    """
    if not reference or reference != reference.strip() or reference.startswith("-"):
        raise InvalidRequest(
            f"{reference!r} is no image; write it as in debian:12 or registry.example/team/app:1.0"
        )
    return Copied(reference if "://" in reference else f"docker://{reference}", insecure, platform)


def _key(place: str, platform: Platform | None) -> str:
    return place if platform is None else f"{place} for {platform}"


def _policy() -> tuple[str, ...]:
    """Which signatures must be there is for the host to say; where it says nothing, none must."""
    return () if _POLICY.exists() else ("--insecure-policy",)


def _configured(config: ImageConfig, digest: str, platform: Platform | None = None) -> bytes:
    """An image configuration as config.md of the image-spec has it, for files that came without one."""
    wanted = platform or of_machine()
    document = {
        "architecture": wanted.architecture,
        **({"variant": wanted.variant} if wanted.variant else {}),
        "os": "linux",
        "config": config.document(),
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
    }
    return json.dumps(document, sort_keys=True).encode()


async def _archive(folder: Path, archive: Path, *words: str) -> str:
    """Packs a folder, the same each time; gives the digest of what was packed."""
    await programs.run("tar", "-c", *_SAME, *_XATTRS, *words, "-f", archive, "-C", folder, ".")
    return await asyncio.to_thread(_digest_of, archive)


def _digest_of(file: Path) -> str:
    try:
        with file.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise ImageError(f"{file} cannot be read: {error.strerror}") from error


def _shortened(line: str) -> str:
    """A line of skopeo with at most twelve digits of a digest."""
    head, colon, digest = line.partition("sha256:")
    return f"fetching: {head}{digest[:12]}" if colon else f"fetching: {line}"
