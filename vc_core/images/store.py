"""The images of this host: a folder each, named by its id, and one file that says which names they have.

<dir>/names.json                     {"debian:12": "<id>"}
<dir>/<id>/{rootfs.erofs,config.json,manifest.json,verified.json}
<dir>/.half-<source>                 being made; its lock lies beside it

A folder gets its name when it is complete. What somebody left who was killed is taken away by the next who looks.
"""

from __future__ import annotations

import asyncio
import contextlib
import difflib
import hashlib
import json
import logging
import re
import shutil
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

from vc_core.driver_kit.file_lock import FileLock, LockTimeout, lock_file
from vc_core.driver_kit.ownership import private_folder, write_private_file
from vc_core.images import platforms, verified
from vc_core.images.image import Image, ImageConfig, ImageError, Progress
from vc_core.images.source import Source
from vc_core.spec.errors import Busy, InvalidRequest, NotFound

_ROOTFS, _CONFIG, _MANIFEST = "rootfs.erofs", "config.json", "manifest.json"
_NAMES = "names.json"
_HALF = ".half-"
_ID = re.compile(r"[0-9a-f]{64}")
_NAME = re.compile(r"[a-z0-9]([A-Za-z0-9._:/@-]*[A-Za-z0-9])?")
_MIN_PREFIX = 4
_NEAR_NAMES = 3
log = logging.getLogger(__name__)


def _nobody(step: str, done: int = 0, total: int = 0) -> None:
    pass


class Images:
    """The images below one folder."""

    def __init__(self, folder: Path, limit_s: float) -> None:
        """Args:
        folder: that holds them; made when it is first needed.
        limit_s: how long to wait for others who write down names.
        """
        self._folder = folder
        self._limit_s = limit_s

    # --- looking -----------------------------------------------------------------------------------------------------

    async def list(self) -> tuple[Image, ...]:
        """All of them, the newest first."""
        await self._sweep()
        names = self._names()
        found = []
        for image_id in self._ids():
            try:
                found.append(self._read(self._folder / image_id, names))
            except ImageError as error:
                log.warning("%s", error)
        return tuple(sorted(found, key=lambda image: -image.made_ns))

    async def get(self, text: str) -> Image:
        """One of them by a name, with or without its tag, or by the beginning of its id.

        Raises:
            NotFound: there is none; or several ids begin so.
            ImageError: it is damaged.
        """
        names = self._names()
        return self._read(self._folder / self._find(text, names), names)

    def _ids(self) -> tuple[str, ...]:
        return tuple(path.parent.name for path in self._folder.glob(f"[!.]*/{_MANIFEST}"))

    def _find(self, text: str, names: dict[str, str]) -> str:
        """The id of the image that is meant; nothing of it is read."""
        text = text.removeprefix("sha256:")
        if not _ID.fullmatch(text) and (found := names.get(tagged(text))):
            return found
        fitting = [one for one in self._ids() if len(text) >= _MIN_PREFIX and one.startswith(text)]
        if len(fitting) == 1:
            return fitting[0]
        if fitting:
            raise NotFound(
                f"{len(fitting)} images have ids that begin with {text}; give more of it"
            )
        near = _near(text, names)
        known = (
            f"near names are: {', '.join(near)}" if near else "'vc image ls' lists those that are"
        )
        raise NotFound(
            f"no image {text} is here; {known}; 'vc image' pulls, imports and builds more"
        )

    async def verify(self, rootfs: Path) -> None:
        """Makes sure that the file of an image is what was made. A path that is none of ours is nothing to compare.

        Raises:
            ImageError: it is not; names the remedy.
        """
        if (
            rootfs.name != _ROOTFS
            or rootfs.parent.parent != self._folder
            or not _ID.fullmatch(rootfs.parent.name)
        ):
            return
        self._read(rootfs.parent, {})
        manifest = json.loads((rootfs.parent / _MANIFEST).read_text())
        await verified.verify(rootfs, str(manifest.get("sha256", "")))

    # --- making ------------------------------------------------------------------------------------------------------

    async def take(self, source: Source, name: str, progress: Progress = _nobody) -> Image:
        """Brings an image and gives it a name. Two that want the same at once do the work once.

        Raises:
            ImageError: it cannot be had; nothing is left of it.
            InvalidRequest: the name is none, or the source is no image.
        """
        name, asked_ns = tagged(name), time.time_ns()
        self._root()
        async with self._making(source.key, progress) as half:
            with contextlib.suppress(NotFound):
                found = await self.get(name)
                if found.made_ns >= asked_ns and found.source == source.key:
                    return found  # by whoever was before us
            known = await source.config_digest()
            found_id = self._from(known) or await self._make(source, known, half, progress)
            document = json.loads((self._folder / found_id / _CONFIG).read_bytes())
            platforms.require(document, source.platform, source.key)
            await self.tag(found_id, name)
        return await self.get(found_id)

    def _from(self, digest: str) -> str:
        """The image that was made from a configuration of this digest; conversion may have given it another."""
        for manifest in self._folder.glob(f"[!.]*/{_MANIFEST}") if digest else ():
            if digest in (manifest.parent.name, json.loads(manifest.read_text()).get("origin")):
                return manifest.parent.name
        return ""

    async def _make(self, source: Source, origin: str, half: Path, progress: Progress) -> str:
        from vc_core.images import erofs  # who only starts containers needs no programs

        half.mkdir(mode=0o700)
        work, made = half / "work", half / "image"
        work.mkdir()
        made.mkdir(mode=0o700)
        material = await source.fetch(work, progress)
        image_id = hashlib.sha256(material.config).hexdigest()
        try:
            document = json.loads(material.config)
            config = ImageConfig.read(document.get("config") or {})
        except (ValueError, TypeError, AttributeError) as error:
            raise ImageError(
                f"the configuration of {source.key} is not as the image-spec has it: {error}"
            ) from error
        await erofs.make(material.tree, made / _ROOTFS, config, image_id, progress)
        (made / _ROOTFS).chmod(0o600)
        write_private_file(made / _CONFIG, material.config)
        manifest = {
            "architecture": document.get("architecture", ""),
            "made_ns": time.time_ns(),
            "source": source.key,
            "origin": origin,
            "bytes": (made / _ROOTFS).stat().st_size,
            "sha256": await verified.make_record(made / _ROOTFS),
        }
        write_private_file(made / _MANIFEST, json.dumps(manifest))
        try:
            made.rename(self._folder / image_id)
        except OSError:
            if not (self._folder / image_id / _MANIFEST).exists():
                raise
            # The same image came from another source meanwhile.
        return image_id

    async def tag(self, image_id: str, name: str) -> None:
        """Gives an image one more name; another that had it has it no longer.

        Raises:
            NotFound: there is no such image.
            InvalidRequest: it is no name.
        """
        name, found = tagged(name), (await self.get(image_id)).id
        async with self._naming() as names:
            names[name] = found

    # --- removing ----------------------------------------------------------------------------------------------------

    async def remove(self, text: str, used: Iterable[Path] = ()) -> str:
        """Takes a name away, and the image with its last one; by its id, the image and all names. Tells what went.

        Args:
            text: a name or the beginning of an id.
            used: root file systems of containers.

        Raises:
            NotFound: there is no such image.
            InvalidRequest: a container has it.
        """
        names = self._names(is_lenient=True)
        found = self._find(text, names)
        mine = sorted(name for name, image_id in names.items() if image_id == found)
        given = text if _ID.fullmatch(text) else tagged(text)
        if len(mine) > 1 and given in mine:
            async with self._naming() as names:
                names.pop(given, None)
            return given
        shown = mine[0] if mine else found
        if self._folder / found / _ROOTFS in set(used):
            raise InvalidRequest(
                f"containers have the image {shown}; 'vc ps' shows them, delete those pods first"
            )
        async with self._naming() as names:
            for name in mine:
                names.pop(name, None)
        self._discard(found)
        return shown

    async def prune(self, used: Iterable[Path] = (), also_named: bool = False) -> tuple[Image, ...]:
        """Removes images without a name, or all that no container has; tells which.

        A damaged one is told as a warning.
        """
        kept, gone = set(used), []
        await self._sweep()
        names = self._names(is_lenient=True)
        for image_id in self._ids():
            if self._folder / image_id / _ROOTFS in kept or (
                image_id in names.values() and not also_named
            ):
                continue
            try:
                gone.append(self._read(self._folder / image_id, names))
            except ImageError as error:
                log.warning("removed: %s", error)
            async with self._naming() as known:
                for name in [name for name, found in known.items() if found == image_id]:
                    del known[name]
            self._discard(image_id)
        return tuple(gone)

    # --- on disk -----------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def _making(self, key: str, progress: Progress) -> AsyncIterator[Path]:
        """A place for one source, in which nobody else works; empty, and gone afterwards."""
        half = self._folder / (_HALF + hashlib.sha256(key.encode()).hexdigest()[:16])
        try:
            lock = await lock_file(self._lock_of(half), exclusive=True, timeout_s=0)
        except LockTimeout:
            progress("waiting for another command that makes the same image")
            lock = await lock_file(self._lock_of(half), exclusive=True)
        async with lock:
            try:
                await _clear(half)  # of somebody who was killed
                yield half
            finally:
                await _clear(half)
                self._lock_of(half).unlink(missing_ok=True)

    @asynccontextmanager
    async def _naming(self) -> AsyncIterator[dict[str, str]]:
        """All names, to be changed; written down at the block's end."""
        try:
            lock: FileLock = await lock_file(
                self._root() / ".names.lock", exclusive=True, timeout_s=self._limit_s
            )
        except LockTimeout as error:
            raise Busy(
                f"the names of images are being written by another command: {error}"
            ) from error
        async with lock:
            names = self._names(is_lenient=True)
            yield names
            half = self._folder / f".{_NAMES}"
            write_private_file(half, json.dumps(names, indent=1, sort_keys=True))
            half.replace(self._folder / _NAMES)

    async def _sweep(self) -> None:
        for half in self._folder.glob(f"{_HALF}*"):
            if half.suffix != ".lock":
                with contextlib.suppress(LockTimeout):  # at work
                    async with await lock_file(self._lock_of(half), exclusive=True, timeout_s=0):
                        await _clear(half)
                        self._lock_of(half).unlink(missing_ok=True)

    def _names(self, is_lenient: bool = False) -> dict[str, str]:
        file = self._folder / _NAMES
        try:
            found: dict[str, str] = json.loads(file.read_text())
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            damage = f"{file} is damaged: {error}; remove it, and tag images anew by their ids"
            if not is_lenient:
                raise ImageError(damage) from error
            log.warning("%s", damage)
            return {}
        return {
            name: one for name, one in found.items() if (self._folder / one / _MANIFEST).exists()
        }

    def _read(self, folder: Path, names: dict[str, str]) -> Image:
        rootfs = folder / _ROOTFS
        try:
            manifest = json.loads((folder / _MANIFEST).read_text())
            document = json.loads((folder / _CONFIG).read_text())
            size = rootfs.stat().st_size
            if size != manifest["bytes"]:
                raise ValueError(f"{_ROOTFS} has another size than at first")
            config = ImageConfig.read(document.get("config") or {})
            architecture, made_ns, source = (
                manifest["architecture"],
                manifest["made_ns"],
                manifest["source"],
            )
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            remedy = f"'vc image rm {folder.name[:12]}' removes it"
            raise ImageError(f"the image in {folder} is damaged: {error}; {remedy}") from error
        mine = tuple(sorted(name for name, found in names.items() if found == folder.name))
        return Image(folder.name, config, architecture, made_ns, source, rootfs, size, mine)

    def _discard(self, image_id: str) -> None:
        (self._folder / image_id / _MANIFEST).unlink(
            missing_ok=True
        )  # first: without it there is no image
        shutil.rmtree(self._folder / image_id)

    def _root(self) -> Path:
        return private_folder(self._folder, "image.dir")

    @staticmethod
    def _lock_of(half: Path) -> Path:
        return half.with_name(f"{half.name}.lock")


def tagged(name: str) -> str:
    """A name with its tag, which is `latest` when it has none.

    Raises:
        InvalidRequest: it is no name.
    """
    if not _NAME.fullmatch(name) or _ID.fullmatch(name):
        raise InvalidRequest(
            f"{name!r} is no name of an image; write it as in debian:12 or team/app"
        )
    return name if ":" in name.rpartition("/")[2] or "@" in name else f"{name}:latest"


def _near(text: str, names: Iterable[str]) -> list[str]:
    """A few names that somebody may have meant."""
    short = {name.removesuffix(":latest"): name for name in sorted(names)}
    parts = {
        part: name
        for name in short.values()
        for part in (name.rpartition(":")[0], name.rpartition("/")[2])
    }
    found = difflib.get_close_matches(text, [*short, *parts], n=_NEAR_NAMES)
    inside = [name for name in short.values() if text in name][:_NEAR_NAMES]
    return list(dict.fromkeys([*((short | parts)[one] for one in found), *inside]))[:_NEAR_NAMES]


async def _clear(folder: Path) -> None:
    """Also when the task is cancelled: a thread goes on to its end."""
    if folder.exists():
        await asyncio.shield(asyncio.to_thread(shutil.rmtree, folder))
