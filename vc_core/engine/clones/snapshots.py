"""Saved pods on disk: a folder each with what the hypervisor has saved, and a manifest, which is
written last.

A folder gets its name when it is complete. Its lock is held by all who start pods from it, alone by
who makes or removes it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from vc_core.driver_kit.file_lock import FileLock, LockTimeout, lock_file
from vc_core.driver_kit.ownership import private_folder, write_private_file
from vc_core.engine.state.ids import checked
from vc_core.engine.state.records import ContainerState, PodConfig, PodState, decode, encode
from vc_core.spec.errors import AlreadyExists, Busy, NotFound, StorageError, VcError
from vc_core.spec.values import Checkpoint, ContainerSpec

log = logging.getLogger(__name__)

_MANIFEST = "manifest.json"
_HALF = ".half-"


@dataclass(frozen=True)
class Snapshot:
    """A pod as it was when it was saved.

    Attributes:
        name: of the snapshot.
        config: of the pod.
        state: of the pod.
        containers: what they were made from, and where they were.
        files: the folder in which the pod's mounts were bound.
        nothing: the empty folder that stood in for others.
        made_ns: since the epoch.
        sizes: of all its files, by name: one that has others now is damaged.
        bytes: what its files take.
    """

    name: str
    config: PodConfig
    state: PodState
    containers: tuple[tuple[ContainerSpec, ContainerState], ...]
    files: Path
    nothing: Path
    made_ns: int
    sizes: dict[str, int] = dataclasses.field(default_factory=dict)
    bytes: int = 0


class Snapshots:
    """The snapshots below one folder."""

    def __init__(self, folder: Path, limit_s: float) -> None:
        self._folder = folder
        self._limit_s = limit_s

    @asynccontextmanager
    async def making(self, name: str) -> AsyncIterator[Checkpoint]:
        """An empty place for the length of a block, which calls `complete` at its end. Nothing is
        left otherwise.

        Raises:
            AlreadyExists: there is one of this name.
            InvalidRequest: it is no name; or the folder is not ours.
        """
        half = self._root() / (_HALF + checked("snapshot", name))
        async with await self._lock(name, exclusive=True):
            if (self._root() / name).exists():
                raise AlreadyExists(
                    f"there is a snapshot {name} already; 'vc snapshot rm {name}' removes it"
                )
            _discard(half)  # of somebody who was killed
            half.mkdir(mode=0o700)
            try:
                yield checkpoint_in(half)
            finally:
                _discard(half)
                if not (self._root() / name).exists():
                    self._lock_path(name).unlink(missing_ok=True)

    def complete(self, snapshot: Snapshot) -> Snapshot:
        """Gives what was made its name."""
        half = self._root() / (_HALF + snapshot.name)
        complete = dataclasses.replace(snapshot, sizes=_sizes(half))
        write_private_file(half / _MANIFEST, encode(complete))
        target = half.rename(self._root() / snapshot.name)
        return dataclasses.replace(complete, bytes=_bytes(target))

    @asynccontextmanager
    async def using(self, name: str) -> AsyncIterator[tuple[Snapshot, Checkpoint]]:
        """One of them, for the length of a block in which nobody can remove it.

        Raises:
            NotFound: there is none of this name.
            StorageError: it is damaged.
        """
        folder = self._existing(name)
        async with await self._lock(name, exclusive=False):
            yield self._read(folder), checkpoint_in(folder)

    async def list(self) -> tuple[Snapshot, ...]:
        """All that are complete, by name. What somebody left who was killed is taken away."""
        for half in self._root().glob(f"{_HALF}*"):
            await self._sweep(half)
        found = []
        for manifest in sorted(self._root().glob(f"[!.]*/{_MANIFEST}")):
            try:
                found.append(self._read(manifest.parent))
            except VcError as error:
                log.warning("%s", error)
        return tuple(found)

    async def remove(self, name: str) -> None:
        """Removes one, damaged or not; pods that were started from it go on.

        Raises:
            NotFound: there is none of this name.
        """
        folder = self._existing(name)
        async with await self._lock(name, exclusive=True):
            with contextlib.suppress(OSError):  # damaged: it is no file
                (folder / _MANIFEST).unlink(
                    missing_ok=True
                )  # first: without it there is no snapshot
            _discard(folder)
            self._lock_path(name).unlink(missing_ok=True)

    def _existing(self, name: str) -> Path:
        folder = self._root() / checked("snapshot", name)
        if not folder.exists():
            known = (
                ", ".join(
                    sorted(path.parent.name for path in self._root().glob(f"[!.]*/{_MANIFEST}"))
                )
                or "none"
            )
            raise NotFound(f"no snapshot {name}; there are: {known}")
        return folder

    async def _sweep(self, half: Path) -> None:
        name = half.name.removeprefix(_HALF)
        try:
            lock = await self._lock(name, exclusive=True, limit_s=0)
        except Busy:
            return  # being made
        async with lock:
            _discard(half)
            self._lock_path(name).unlink(missing_ok=True)

    @staticmethod
    def _read(folder: Path) -> Snapshot:
        remedy = f"'vc snapshot rm {folder.name}' removes it"
        try:
            found = decode(
                (folder / _MANIFEST).read_text(), Snapshot, f"the snapshot {folder.name}"
            )
        except (OSError, UnicodeDecodeError) as error:
            raise StorageError(
                f"the snapshot {folder.name} cannot be read: {error}; {remedy}"
            ) from error
        except StorageError as error:
            raise StorageError(f"{error}; {remedy}") from error
        if found.sizes != _sizes(folder):
            reason = "its files have other sizes than at first"
            raise StorageError(f"the snapshot {folder.name} is damaged: {reason}; {remedy}")
        return dataclasses.replace(found, bytes=_bytes(folder))

    async def _lock(self, name: str, exclusive: bool, limit_s: float | None = None) -> FileLock:
        try:
            limit = self._limit_s if limit_s is None else limit_s
            return await lock_file(self._lock_path(name), exclusive, limit)
        except LockTimeout as error:
            raise Busy(f"the snapshot {name} is being made or used: {error}") from error

    def _lock_path(self, name: str) -> Path:
        return self._root() / f".{name}.lock"

    def _root(self) -> Path:
        return private_folder(self._folder, "snapshot.dir")


def checkpoint_in(folder: Path) -> Checkpoint:
    """What the hypervisor keeps in a snapshot's folder."""
    return Checkpoint(folder, folder / "memory")


def _sizes(folder: Path) -> dict[str, int]:
    return {file.name: file.stat().st_size for file in folder.iterdir() if file.name != _MANIFEST}


def _bytes(folder: Path) -> int:
    return sum(file.stat().st_blocks * 512 for file in folder.iterdir())


def _discard(folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)
