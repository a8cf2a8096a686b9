"""Where an image can come from. Each kind of source brings the image's configuration and its tree of files."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import re
import tarfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vc_core.images import layout, programs
from vc_core.images.image import ImageConfig, ImageError, Progress
from vc_core.spec.errors import InvalidRequest

_POLICY = Path("/etc/containers/policy.json")
_XATTRS = ("--xattrs", "--xattrs-include=*", "--numeric-owner", "--sparse")
_SAME = ("--sort=name", "--pax-option=exthdr.name=%d/%f,delete=atime,delete=ctime")
_OF_ARCHIVES = re.compile(r"index\.json|repositories|blobs|[0-9a-f]{64}(\.json|\.tar)?")
_TREE = "tree"


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
    """

    key: str

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

    def __init__(self, folder: Path, tag: str = "") -> None:
        self.key = f"oci:{folder}:{tag}"
        self._folder = folder
        self._tag = tag

    async def config_digest(self) -> str:
        return (await asyncio.to_thread(layout.find, self._folder, self._tag)).config_digest

    async def fetch(self, into: Path, progress: Progress) -> Material:
        found = await asyncio.to_thread(layout.find, self._folder, self._tag)
        await asyncio.to_thread(layout.check, found, progress)
        progress("unpacking")
        staged, tree = into / "staged", into / _TREE
        layout.stage(found, staged)
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
    """Whatever skopeo can copy: images of registries, docker archives, OCI archives."""

    def __init__(self, reference: str, insecure: bool = False) -> None:
        self.key = reference
        self._tls = ("--src-tls-verify=false",) if insecure else ()
        self._inspect_tls = ("--tls-verify=false",) if insecure else ()

    async def config_digest(self) -> str:
        words = ("inspect", "--config", "--raw", *self._inspect_tls, self.key)
        return hashlib.sha256(await _skopeo(*words)).hexdigest()

    async def fetch(self, into: Path, progress: Progress) -> Material:
        progress("fetching")
        copied = into / "copied"
        words = ("copy", *self._tls, self.key, f"oci:{copied}:image")
        await _skopeo(*words, told=lambda line: progress(_shortened(line)))
        return await OciLayout(copied, "image").fetch(into, progress)


class Tarball(Source):
    """The files of a root file system in a tar archive, compressed or not."""

    def __init__(self, file: Path, config: ImageConfig) -> None:
        self.key = f"tarball:{file}"
        self._file = file
        self._config = config

    async def fetch(self, into: Path, progress: Progress) -> Material:
        progress("reading")
        digest = await asyncio.to_thread(_digest_of, self._file)
        progress("unpacking")
        tree = into / _TREE
        tree.mkdir()
        await programs.run("tar", "-x", "-p", *_XATTRS, "-f", self._file, "-C", tree)
        return Material(_configured(self._config, digest), tree)


class Folder(Source):
    """The files of a root file system as they lie there."""

    def __init__(self, folder: Path, config: ImageConfig) -> None:
        self.key = f"folder:{folder}"
        self._folder = folder
        self._config = config

    async def fetch(self, into: Path, progress: Progress) -> Material:
        progress("copying")
        archive, tree = into / "tree.tar", into / _TREE
        tree.mkdir()
        digest = await _archive(self._folder, archive, "--one-file-system")
        await programs.run("tar", "-x", "-p", *_XATTRS, "-f", archive, "-C", tree)
        archive.unlink()
        return Material(_configured(self._config, digest), tree)


class Made(Source):
    """A root file system that is made here, by a function that fills an empty folder."""

    def __init__(
        self, key: str, config: ImageConfig, fill: Callable[[Path, Progress], Coroutine[Any, Any, None]]
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


def of_path(path: Path, tag: str = "", config: ImageConfig | None = None) -> Source:
    """What lies at a path: an OCI layout, an OCI or docker archive, a tarball or a folder.

    Args:
        path: of the host.
        tag: which image of a layout or archive.
        config: for a tarball or folder, which have none of their own.

    Raises:
        InvalidRequest: it is none of these; or a configuration was given for what has one.
    """
    path = path.absolute()
    kind = _kind(path)
    if kind in ("tarball", "folder"):
        if tag:
            raise InvalidRequest(f"{path} is a {kind} of files, which has no tag {tag!r}")
        return (Tarball if kind == "tarball" else Folder)(path, config or ImageConfig())
    if config is not None and config != ImageConfig():
        raise InvalidRequest(f"{path} is an image with a configuration of its own; leave --cmd and the like away")
    if kind == "layout":
        return OciLayout(path, tag)
    return Copied(f"{kind}:{path}" + (f":{tag}" if tag else ""))


def of_reference(reference: str, insecure: bool = False) -> Source:
    """An image of a registry, or what another word before the first colon says as skopeo has it.

    Raises:
        InvalidRequest: it cannot be a reference.
    """
    if not reference or reference != reference.strip() or reference.startswith("-"):
        raise InvalidRequest(f"{reference!r} is no image; write it as in debian:12 or registry.example/team/app:1.0")
    return Copied(reference if "://" in reference else f"docker://{reference}", insecure)


def _kind(path: Path) -> str:
    if path.is_dir():
        return "layout" if layout.is_layout(path) else "folder"
    try:
        with tarfile.open(path) as archive:
            for member in archive:
                name = member.name.removeprefix("./")
                if name in ("oci-layout", "manifest.json"):
                    return "oci-archive" if name == "oci-layout" else "docker-archive"
                if name not in ("", ".") and not _OF_ARCHIVES.fullmatch(name.partition("/")[0]):
                    break  # what no image archive has at its top
    except FileNotFoundError as error:
        raise InvalidRequest(f"there is no {path}; 'vc image pull' fetches from a registry") from error
    except (OSError, tarfile.TarError, EOFError) as error:
        reason = str(error).partition(":\n")[0]  # behind it, a line for each way in which it was tried
        raise InvalidRequest(
            f"{path} is no folder and no tar archive, plain or by gzip, bzip2, xz: {reason}"
        ) from error
    return "tarball"


def _policy() -> tuple[str, ...]:
    """Which signatures must be there is for the host to say; where it says nothing, none must."""
    return () if _POLICY.exists() else ("--insecure-policy",)


def _configured(config: ImageConfig, digest: str) -> bytes:
    """An image configuration as config.md of the image-spec has it, for files that came without one."""
    document = {
        "architecture": layout.architecture(),
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
