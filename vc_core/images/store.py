"""The images of this host: one directory per image, named by its id, and a file of names.

<dir>/names.json                     {"debian:12": "<id>"}
<dir>/<id>/{rootfs.erofs,config.json,manifest.json,verified.json}
<dir>/.half-<source>                 being created

Leftovers of a killed process are removed by the next command.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import re
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

from vc_core.artifact_store import MANIFEST, ArtifactStore
from vc_core.driver_kit.file_lock import FileLock, LockTimeout, lock_file
from vc_core.driver_kit.ownership import write_private_file
from vc_core.images import platforms, verified
from vc_core.images.image import Image, ImageConfig, ImageError, Progress
from vc_core.images.source import Source
from vc_core.spec.errors import Busy, InvalidRequest, NotFound

_ROOTFS, _CONFIG = "rootfs.erofs", "config.json"
_NAMES = "names.json"
_ID = r"[0-9a-f]{64}"
_NAME = r"[a-z0-9]([A-Za-z0-9._:/@-]*[A-Za-z0-9])?"
_MIN_PREFIX = 4
_NEAR_NAMES = 3
log = logging.getLogger(__name__)


def _nobody(step: str, done: int = 0, total: int = 0) -> None:
    pass


class Images:
    """The images in one directory."""

    def __init__(self, folder: Path, limit_s: float) -> None:
        """Open the images in a directory.

        Args:
            folder: the directory; created when it is first needed.
            limit_s: seconds to wait for the lock of the names.
        """
        self._artifacts = ArtifactStore(folder, "image.dir", "image", limit_s=None)
        self._folder = folder
        self._limit_s = limit_s

    # --- queries ---

    async def list(self) -> tuple[Image, ...]:
        """All images, the newest first."""
        await self._artifacts.sweep()
        names = self._names()
        images = []
        for image_id in self._artifacts.names():
            try:
                images.append(self._read(self._folder / image_id, names))
            except ImageError as error:
                log.warning("%s", error)
        return tuple(sorted(images, key=lambda image: -image.made_ns))

    async def get(self, text: str) -> Image:
        """Find an image by a name, with or without its tag, or by the beginning of its id.

        Raises:
            NotFound: no image matches, or several ids begin so.
            ImageError: the image is damaged.
        """
        names = self._names()
        return self._read(self._folder / self._find(text, names), names)

    def _find(self, text: str, names: dict[str, str]) -> str:
        """Find the id of an image without reading the image."""
        text = text.removeprefix("sha256:")
        if not re.fullmatch(_ID, text) and (image_id := names.get(tagged(text))):
            return image_id
        fitting = [
            known_id
            for known_id in self._artifacts.names()
            if len(text) >= _MIN_PREFIX and known_id.startswith(text)
        ]
        if len(fitting) == 1:
            return fitting[0]
        if fitting:
            raise NotFound(
                f"{len(fitting)} images have ids that begin with {text}; give a longer prefix"
            )
        near = _near(text, names)
        known = f"similar names: {', '.join(near)}" if near else "'vc image ls' lists images"
        raise NotFound(f"no image {text}; {known}, 'vc image --help' shows how to add one")

    async def verify(self, rootfs: Path) -> None:
        """Verify the file of an image; other paths are ignored.

        Raises:
            ImageError: the file was changed.
        """
        if (
            rootfs.name != _ROOTFS
            or rootfs.parent.parent != self._folder
            or not re.fullmatch(_ID, rootfs.parent.name)
        ):
            return
        self._read(rootfs.parent, {})
        manifest = json.loads((rootfs.parent / MANIFEST).read_text())
        await verified.verify(rootfs, str(manifest.get("sha256", "")))

    # --- creation ---

    async def take(self, source: Source, name: str, progress: Progress = _nobody) -> Image:
        """Add an image from a source, under a name. Concurrent calls for one source fetch it once.

        Raises:
            ImageError: it cannot be fetched; nothing of it is left.
            InvalidRequest: the name is invalid, or the source is not an image.
        """
        name, asked_ns = tagged(name), time.time_ns()
        self._artifacts.root()
        async with self._making(source.key, progress) as half:
            with contextlib.suppress(NotFound):
                image = await self.get(name)
                if image.made_ns >= asked_ns and image.source == source.key:
                    return image  # added while we waited for the lock
            origin = await source.config_digest()
            image_id = self._from(origin) or await self._make(source, origin, half, progress)
            document = json.loads((self._folder / image_id / _CONFIG).read_bytes())
            platforms.require(document, source.platform, source.key)
            await self.tag(image_id, name)
        return await self.get(image_id)

    def _from(self, digest: str) -> str:
        """The id of the image with this configuration digest, before or after conversion."""
        for name in self._artifacts.names() if digest else ():
            manifest = json.loads((self._artifacts.path(name) / MANIFEST).read_text())
            if digest in (name, manifest.get("origin")):
                return name
        return ""

    async def _make(self, source: Source, origin: str, half: Path, progress: Progress) -> str:
        from vc_core.images import erofs  # imported here, as starting a container does not need it

        work, image = half / "work", half / "image"
        work.mkdir()
        image.mkdir(mode=0o700)
        material = await source.fetch(work, progress)
        image_id = hashlib.sha256(material.config).hexdigest()
        try:
            document = json.loads(material.config)
            config = ImageConfig.read(document.get("config") or {})
        except (ValueError, TypeError, AttributeError) as error:
            raise ImageError(f"the configuration of {source.key} is invalid: {error}") from error
        await erofs.make(material.tree, image / _ROOTFS, config, image_id, progress)
        (image / _ROOTFS).chmod(0o600)
        write_private_file(image / _CONFIG, material.config)
        manifest = {
            "architecture": document.get("architecture", ""),
            "made_ns": time.time_ns(),
            "source": source.key,
            "origin": origin,
            "bytes": (image / _ROOTFS).stat().st_size,
            "sha256": await verified.make_record(image / _ROOTFS),
        }
        try:
            self._artifacts.complete(image, image_id, json.dumps(manifest))
        except OSError:
            if image_id not in self._artifacts.names():
                raise
            # The same image was added from another source meanwhile.
        return image_id

    async def tag(self, image_id: str, name: str) -> None:
        """Add a name to an image; it is removed from an image that had it.

        Raises:
            NotFound: the image does not exist.
            InvalidRequest: the name is invalid.
        """
        name, full_id = tagged(name), (await self.get(image_id)).id
        async with self._naming() as names:
            names[name] = full_id

    # --- removal ---

    async def remove(self, text: str, used: Iterable[Path] = ()) -> str:
        """Remove a name, and the image with its last name; by id, the image with all its names.

        Args:
            text: a name or the beginning of an id.
            used: root file systems of containers.

        Returns:
            The removed name or id.

        Raises:
            NotFound: the image does not exist.
            InvalidRequest: a container uses it.
        """
        names = self._names(is_lenient=True)
        found_id = self._find(text, names)
        mine = sorted(name for name, image_id in names.items() if image_id == found_id)
        given = text if re.fullmatch(_ID, text) else tagged(text)
        if len(mine) > 1 and given in mine:
            async with self._naming() as names:
                names.pop(given, None)
            return given
        shown = mine[0] if mine else found_id
        if self._folder / found_id / _ROOTFS in set(used):
            raise InvalidRequest(
                f"the image {shown} is used by containers; delete their pods ('vc ps' lists them)"
            )
        async with self._naming() as names:
            for name in mine:
                names.pop(name, None)
        self._artifacts.discard(found_id)
        return shown

    async def prune(self, used: Iterable[Path] = (), also_named: bool = False) -> tuple[Image, ...]:
        """Remove unused images without a name, or all unused images, and return them.

        A damaged image is logged instead.
        """
        in_use, removed = set(used), []
        await self._artifacts.sweep()
        names = self._names(is_lenient=True)
        for image_id in self._artifacts.names():
            if self._folder / image_id / _ROOTFS in in_use or (
                image_id in names.values() and not also_named
            ):
                continue
            try:
                removed.append(self._read(self._folder / image_id, names))
            except ImageError as error:
                log.warning("removed: %s", error)
            async with self._naming() as known:
                for name in [name for name, named_id in known.items() if named_id == image_id]:
                    del known[name]
            self._artifacts.discard(image_id)
        return tuple(removed)

    # --- files ---

    @asynccontextmanager
    async def _making(self, key: str, progress: Progress) -> AsyncIterator[Path]:
        """Yield an empty directory to create the image of one source; it is removed afterwards."""
        name = hashlib.sha256(key.encode()).hexdigest()[:16]
        try:
            lock = await self._artifacts.lock(name, exclusive=True, limit_s=0)
        except Busy:
            progress("waiting for another command that adds the same image")
            lock = await self._artifacts.lock(name, exclusive=True)
        async with lock, self._artifacts.making(name) as half:
            yield half

    @asynccontextmanager
    async def _naming(self) -> AsyncIterator[dict[str, str]]:
        """Yield all names for changes, which are saved at the end of the block."""
        try:
            lock: FileLock = await lock_file(
                self._artifacts.root() / ".names.lock", exclusive=True, timeout_s=self._limit_s
            )
        except LockTimeout as error:
            raise Busy(f"another command holds the lock of the image names: {error}") from error
        async with lock:
            names = self._names(is_lenient=True)
            yield names
            half = self._folder / f".{_NAMES}"
            write_private_file(half, json.dumps(names, indent=1, sort_keys=True))
            half.replace(self._folder / _NAMES)

    def _names(self, is_lenient: bool = False) -> dict[str, str]:
        file = self._folder / _NAMES
        try:
            names: dict[str, str] = json.loads(file.read_text())
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            damage = f"{file} is damaged: {error}; remove it, and tag images again by their ids"
            if not is_lenient:
                raise ImageError(damage) from error
            log.warning("%s", damage)
            return {}
        return {
            name: image_id
            for name, image_id in names.items()
            if (self._folder / image_id / MANIFEST).exists()
        }

    def _read(self, folder: Path, names: dict[str, str]) -> Image:
        rootfs = folder / _ROOTFS
        try:
            manifest = json.loads((folder / MANIFEST).read_text())
            document = json.loads((folder / _CONFIG).read_text())
            size = rootfs.stat().st_size
            if size != manifest["bytes"]:
                raise ValueError(f"the size of {_ROOTFS} has changed")
            config = ImageConfig.read(document.get("config") or {})
            architecture, made_ns, source = (
                manifest["architecture"],
                manifest["made_ns"],
                manifest["source"],
            )
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            remedy = f"use 'vc image rm {folder.name[:12]}' to remove it"
            raise ImageError(f"the image in {folder} is damaged: {error}; {remedy}") from error
        mine = tuple(sorted(name for name, found in names.items() if found == folder.name))
        return Image(folder.name, config, architecture, made_ns, source, rootfs, size, mine)


def tagged(name: str) -> str:
    """Add the tag `latest` to a name without a tag.

    Raises:
        InvalidRequest: the name is invalid.
    """
    if not re.fullmatch(_NAME, name) or re.fullmatch(_ID, name):
        raise InvalidRequest(f"{name!r} is not an image name; use e.g. debian:12 or team/app")
    return name if ":" in name.rpartition("/")[2] or "@" in name else f"{name}:latest"


def _near(text: str, names: Iterable[str]) -> list[str]:
    """A few similar names."""
    short = {name.removesuffix(":latest"): name for name in sorted(names)}
    parts = {
        part: name
        for name in short.values()
        for part in (name.rpartition(":")[0], name.rpartition("/")[2])
    }
    import difflib  # for errors only

    found = difflib.get_close_matches(text, [*short, *parts], n=_NEAR_NAMES)
    inside = [name for name in short.values() if text in name][:_NEAR_NAMES]
    return list(dict.fromkeys([*((short | parts)[one] for one in found), *inside]))[:_NEAR_NAMES]
