"""Saved pods on disk: a folder each, with what the hypervisor has saved and a manifest.

The lock of a folder is held by all who start pods from it, alone by who makes or removes it.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from vc_core.artifact_store import MANIFEST, ArtifactStore
from vc_core.engine.state.ids import checked
from vc_core.engine.state.records import ContainerState, PodConfig, PodState, decode, encode
from vc_core.spec.errors import AlreadyExists, NotFound, StorageError, VcError
from vc_core.spec.values import Checkpoint, ContainerSpec

log = logging.getLogger(__name__)


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
        self._artifacts = ArtifactStore(folder, "snapshot.dir", "snapshot", limit_s)

    @asynccontextmanager
    async def making(self, name: str) -> AsyncIterator[Checkpoint]:
        """An empty place for the length of a block, which calls `complete` at its end. Nothing is
        left otherwise.

        Raises:
            AlreadyExists: there is one of this name.
            InvalidRequest: it is no name; or the folder is not ours.
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
        """Gives what was made its name."""
        half = self._artifacts.half(snapshot.name)
        complete = dataclasses.replace(snapshot, sizes=_sizes(half))
        target = self._artifacts.complete(half, snapshot.name, encode(complete))
        return dataclasses.replace(complete, bytes=_bytes(target))

    @asynccontextmanager
    async def using(self, name: str) -> AsyncIterator[tuple[Snapshot, Checkpoint]]:
        """One of them, for the length of a block in which nobody can remove it.

        Raises:
            NotFound: there is none of this name.
            StorageError: it is damaged.
        """
        folder = self._existing(name)
        async with await self._artifacts.lock(name, exclusive=False):
            yield self._read(folder), checkpoint_in(folder)

    async def list(self) -> tuple[Snapshot, ...]:
        """All that are complete, by name. What somebody left who was killed is taken away."""
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
        """Removes one, damaged or not; pods that were started from it go on.

        Raises:
            NotFound: there is none of this name.
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
        return dataclasses.replace(found, bytes=_bytes(folder))


def checkpoint_in(folder: Path) -> Checkpoint:
    """What the hypervisor keeps in a snapshot's folder."""
    return Checkpoint(folder=folder, memory=folder / "memory")


def _sizes(folder: Path) -> dict[str, int]:
    return {file.name: file.stat().st_size for file in folder.iterdir() if file.name != MANIFEST}


def _bytes(folder: Path) -> int:
    return sum(file.stat().st_blocks * 512 for file in folder.iterdir())
