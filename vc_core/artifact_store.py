"""Folders that are complete or not there, below one folder: templates, snapshots and images.

<folder>/<name>/          complete; its manifest was written last
<folder>/.half-<name>/    being made, or left by a process that was killed
<folder>/.<name>.lock     held alone while it is made or removed, shared while it is used
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from vc_core.driver_kit.file_lock import FileLock, LockTimeout, lock_file
from vc_core.driver_kit.ownership import private_folder, write_private_file
from vc_core.spec.errors import Busy, VcError

log = logging.getLogger(__name__)

MANIFEST = "manifest.json"
HALF = ".half-"


async def remove_tree(folder: Path) -> None:
    """Removes a folder, if it is there; when the task is cancelled, a thread finishes the work."""
    if folder.exists():
        await asyncio.shield(asyncio.to_thread(shutil.rmtree, folder))


class ArtifactStore:
    """The artifacts below one folder."""

    def __init__(
        self,
        folder: Path,
        setting: str,
        kind: str,
        limit_s: float | None,
        clear: Callable[[Path], Awaitable[None]] = remove_tree,
    ) -> None:
        """Args:
        folder: that holds them; made when the first one is.
        setting: that names the folder, for messages.
        kind: what one of them is called in messages.
        limit_s: how many seconds to wait for a lock; for ever when None.
        clear: removes what was half made, if there is any; called with the lock held.
        """
        self.folder = folder
        self._setting = setting
        self._kind = kind
        self._limit_s = limit_s
        self._clear = clear

    def root(self) -> Path:
        """The folder, made when it is not there.

        Raises:
            InvalidRequest: it belongs to somebody else.
        """
        return private_folder(self.folder, self._setting)

    def names(self) -> tuple[str, ...]:
        """Those that are complete, sorted."""
        return tuple(sorted(path.parent.name for path in self.folder.glob(f"[!.]*/{MANIFEST}")))

    def path(self, name: str) -> Path:
        """The folder of one, whether it is there or not."""
        return self.folder / name

    def half(self, name: str) -> Path:
        """The folder in which one is made."""
        return self.folder / (HALF + name)

    async def lock(self, name: str, exclusive: bool, limit_s: float | None = None) -> FileLock:
        """Locks one, which need not be there.

        Args:
            name: of the artifact.
            exclusive: alone, or together with others that are not.
            limit_s: how many seconds to wait; as the store does when None.

        Raises:
            Busy: somebody else makes or uses it.
        """
        limit = self._limit_s if limit_s is None else limit_s
        self.root()
        try:
            return await lock_file(self._lock_path(name), exclusive, limit)
        except LockTimeout as error:
            raise Busy(f"the {self._kind} {name} is being made or used: {error}") from error

    @asynccontextmanager
    async def making(self, name: str) -> AsyncIterator[Path]:
        """An empty folder to make one in; `complete` gives it its name, else it is removed.

        The caller holds the lock, alone. Something that cannot be removed does not hide the error
        of the block.
        """
        half = self.half(name)
        await self._clear(half)  # of a process that was killed
        half.mkdir(mode=0o700)
        try:
            yield half
        except BaseException:
            try:
                await self._clear(half)
            except (VcError, OSError) as error:
                log.warning("%s could not be removed: %s", half, error)
            raise
        else:
            await self._clear(half)
        finally:
            self.remove_unused_lock(name)

    def complete(self, half: Path, name: str, manifest: str) -> Path:
        """Writes the manifest of what was made, and gives it its name.

        Raises:
            OSError: it is there already, or the medium fails.
        """
        write_private_file(half / MANIFEST, manifest)
        return half.rename(self.path(name))

    def discard(self, name: str) -> None:
        """Removes one, damaged or not. The caller holds the lock, alone."""
        folder = self.path(name)
        with contextlib.suppress(OSError):  # damaged: it is no file
            (folder / MANIFEST).unlink(missing_ok=True)  # first: without it there is no artifact
        shutil.rmtree(folder)

    async def sweep(self) -> None:
        """Clears what killed processes left half made."""
        for half in self.folder.glob(f"{HALF}*"):
            name = half.name.removeprefix(HALF)
            with contextlib.suppress(Busy):  # it is being made
                async with await self.lock(name, exclusive=True, limit_s=0):
                    await self._clear(half)
                    self.remove_unused_lock(name)

    def remove_unused_lock(self, name: str) -> None:
        """Removes the lock file of what is not there. The caller holds the lock, alone."""
        if not self.path(name).exists():
            self._lock_path(name).unlink(missing_ok=True)

    def _lock_path(self, name: str) -> Path:
        return self.folder / f".{name}.lock"
