"""Snapshots: saved pods on disk, each a folder with the files of the hypervisor and a manifest.

Processes that start pods from a snapshot share its folder's lock; a process that makes or removes
it holds the lock exclusively.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from msgspec import Struct, field, structs

from vc_core.artifact_store import MANIFEST, ArtifactStore
from vc_core.engine.state.ids import checked
from vc_core.engine.state.records import ContainerState, PodConfig, PodState, decode, encode
from vc_core.spec.errors import AlreadyExists, NotFound, StorageError, VcError
from vc_core.spec.values import Checkpoint, ContainerSpec

log = logging.getLogger(__name__)


class Snapshot(Struct, frozen=True):
    """A pod at the time when it was saved.

    Attributes:
        name: name of the snapshot.
        config: configuration of the pod.
        state: state of the pod.
        containers: specifications and states of the containers.
        files: the folder in which the pod's mounts were bound.
        nothing: the empty folder that was the placeholder for others.
        made_ns: time of its creation, in nanoseconds since the epoch.
        sizes: sizes in bytes of all its files, by name; a snapshot with other sizes is damaged.
        bytes: disk space of its files, in bytes.
    """

    name: str
    config: PodConfig
    state: PodState
    containers: tuple[tuple[ContainerSpec, ContainerState], ...]
    files: Path
    nothing: Path
    made_ns: int
    sizes: dict[str, int] = field(default_factory=dict)
    bytes: int = 0


class Snapshots:
    """The snapshots below one folder."""

    def __init__(self, folder: Path, limit_s: float) -> None:
        self._artifacts = ArtifactStore(folder, "snapshot.dir", "snapshot", limit_s)

    @asynccontextmanager
    async def making(self, name: str) -> AsyncIterator[Checkpoint]:
        """Provides an empty checkpoint for the length of a block, which ends with `complete`.

        Without that call nothing is left.

        Raises:
            AlreadyExists: there is a snapshot of this name.
            InvalidRequest: the name is invalid, or the folder belongs to another user.
        """
        checked("snapshot", name)
        async with await self._artifacts.lock(name, exclusive=True):
            if self._artifacts.path(name).exists():
                raise AlreadyExists(
                    f"there is a snapshot {name} already; 'vc snapshot rm {name}' removes it"
                )
            async with self._artifacts.making(name) as half:
                yield checkpoint_in(half)

    def complete(self, snapshot: Snapshot) -> Snapshot:
        """Renames the finished snapshot to its final name."""
        half = self._artifacts.half(snapshot.name)
        complete = structs.replace(snapshot, sizes=_sizes(half))
        target = self._artifacts.complete(half, snapshot.name, encode(complete))
        return structs.replace(complete, bytes=_bytes(target))

    @asynccontextmanager
    async def using(self, name: str) -> AsyncIterator[tuple[Snapshot, Checkpoint]]:
        """Provides a snapshot for the length of a block, locked against removal.

        Raises:
            NotFound: there is no snapshot of this name.
            StorageError: it is damaged.
        """
        folder = self._existing(name)
        async with await self._artifacts.lock(name, exclusive=False):
            yield self._read(folder), checkpoint_in(folder)

    async def list(self) -> tuple[Snapshot, ...]:
        """Returns the complete snapshots, by name. Removes what killed processes left."""
        self._artifacts.root()
        await self._artifacts.sweep()
        found = []
        for name in self._artifacts.names():
            try:
                found.append(self._read(self._artifacts.path(name)))
            except VcError as error:
                log.warning("%s", error)
        return tuple(found)

    async def remove(self, name: str) -> None:
        """Removes a snapshot, damaged or not; pods that were started from it keep running.

        Raises:
            NotFound: there is no snapshot of this name.
        """
        self._existing(name)
        async with await self._artifacts.lock(name, exclusive=True):
            self._artifacts.discard(name)
            self._artifacts.remove_unused_lock(name)

    def _existing(self, name: str) -> Path:
        self._artifacts.root()
        folder = self._artifacts.path(checked("snapshot", name))
        if not folder.exists():
            known = ", ".join(self._artifacts.names()) or "none"
            raise NotFound(f"no snapshot {name}; there are: {known}")
        return folder

    @staticmethod
    def _read(folder: Path) -> Snapshot:
        remedy = f"'vc snapshot rm {folder.name}' removes it"
        try:
            found = decode((folder / MANIFEST).read_text(), Snapshot, f"the snapshot {folder.name}")
        except (OSError, UnicodeDecodeError) as error:
            raise StorageError(
                f"the snapshot {folder.name} cannot be read: {error}; {remedy}"
            ) from error
        except StorageError as error:
            raise StorageError(f"{error}; {remedy}") from error
        if found.sizes != _sizes(folder):
            reason = "its files have other sizes than at first"
            raise StorageError(f"the snapshot {folder.name} is damaged: {reason}; {remedy}")
        return structs.replace(found, bytes=_bytes(folder))


def checkpoint_in(folder: Path) -> Checkpoint:
    """Returns the checkpoint in a snapshot's folder."""
    return Checkpoint(folder=folder, memory=folder / "memory")


def _sizes(folder: Path) -> dict[str, int]:
    return {file.name: file.stat().st_size for file in folder.iterdir() if file.name != MANIFEST}


def _bytes(folder: Path) -> int:
    return sum(file.stat().st_blocks * 512 for file in folder.iterdir())
