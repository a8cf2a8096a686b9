"""Storage operations on two folders, one that survives a reboot and one that need not.

<config_root>/pods/<pod>/config.json                    the pod exists because this does
<config_root>/pods/<pod>/containers/<ctr>/config.json
<run_root>/pods/<pod>/{state,hypervisor,agent}.json     and the drivers' sockets
<run_root>/pods/<pod>/containers/<ctr>/{state,process,mounts,devices}.json
<run_root>/locks/<pod>
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

from vc_core.driver_kit import LockTimeout, lock_file, private_folder
from vc_core.spec import (
    AlreadyExists,
    Busy,
    Finding,
    NotFound,
    Record,
    StorageError,
    StorageSpec,
    StoreListing,
    StoreLock,
    Verdict,
    hookimpl,
)
from vc_storage_fs import files
from vc_storage_fs.options import FsOptions

_CONFIG = "config.json"
_RUN = "storage.fs.run_root"
_CONFIG_ROOT = "storage.fs.config_root"
_DURABLE = (Record.POD_CONFIG, Record.CONTAINER_CONFIG)
_NAMES = {
    Record.POD_CONFIG: _CONFIG,
    Record.CONTAINER_CONFIG: _CONFIG,
    Record.POD_STATE: "state.json",
    Record.CONTAINER_STATE: "state.json",
}


class FsStorage(StorageSpec):
    """The plugin `fs`."""

    options_type = FsOptions

    def __init__(self, options: FsOptions) -> None:
        self._run = options.run_root
        self._config = options.config_root
        self._pods_run = self._run / "pods"
        self._pods_config = self._config / "pods"

    @hookimpl
    async def storage_run_dir(self, pod_id: str) -> Path:
        return self._pods_run / pod_id

    @hookimpl
    async def storage_create(self, pod_id: str, config: str) -> None:
        await asyncio.to_thread(self._create, pod_id, config)

    @hookimpl
    async def storage_list(self) -> StoreListing:
        return self._list()  # a thread would take longer than most lists

    @hookimpl
    async def storage_containers(self, pod_id: str) -> tuple[str, ...]:
        self._require(pod_id)
        folder = self._pod_config(pod_id) / "containers"
        try:
            with os.scandir(folder) as found:
                names = sorted(one.name for one in found if not one.name.startswith("."))
        except FileNotFoundError:
            return ()
        return tuple(name for name in names if not files.is_missing(folder / name / _CONFIG))

    @hookimpl
    async def storage_lock(self, pod_id: str, exclusive: bool, timeout_s: float) -> StoreLock:
        self._require(pod_id)
        folder = self._run / "locks"
        private_folder(self._run, _RUN)
        private_folder(folder, _RUN)
        try:
            lock = await lock_file(folder / pod_id, exclusive, timeout_s)
        except LockTimeout as error:
            raise Busy(f"pod {pod_id} is busy: another call holds its lock ({error})") from error
        try:
            self._require(pod_id)
        except NotFound:
            (folder / pod_id).unlink(missing_ok=True)
            await lock.release()
            raise
        return lock

    @hookimpl
    async def storage_put(self, pod_id: str, container_id: str, record: Record, data: str) -> None:
        self._require(pod_id)
        await asyncio.to_thread(self._put, self._path(pod_id, container_id, record), data)

    @hookimpl
    async def storage_get(self, pod_id: str, container_id: str, record: Record) -> str | None:
        path = self._path(pod_id, container_id, record)
        try:
            return path.read_text()
        except FileNotFoundError:
            self._require(pod_id)
            return None
        except OSError as error:
            raise StorageError(f"{path} cannot be read: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise StorageError(f"{path} is damaged: it is not UTF-8 text") from error

    @hookimpl
    async def storage_place(self, pod_id: str, container_id: str, record: Record) -> str:
        return str(self._path(pod_id, container_id, record))

    @hookimpl
    async def storage_delete(self, pod_id: str, container_id: str) -> None:
        await asyncio.to_thread(self._delete, pod_id, container_id)

    @hookimpl
    async def storage_diagnose(self) -> tuple[Finding, ...]:
        return tuple(
            _examine(root, option)
            for root, option in ((self._run, "run_root"), (self._config, "config_root"))
        )

    # --- on threads -------------------------------------------------------------------------------

    def _create(self, pod_id: str, config: str) -> None:
        for root, setting in ((self._config, _CONFIG_ROOT), (self._run, _RUN)):
            private_folder(root, setting)
            private_folder(root / "pods", setting)
        if not files.create_folder_with(self._pod_config(pod_id), _CONFIG, config):
            raise AlreadyExists(
                f"pod {pod_id} exists already; choose another name, or 'vc pod delete {pod_id}'"
            )
        private_folder(self._pod_run(pod_id), _RUN)

    def _list(self) -> StoreListing:
        pods: list[str] = []
        for root in (self._config, self._run):
            files.sweep(root / "pods")
        problems = list(self._foreign_runs())
        for path in self._entries(self._config):
            if files.is_at_work(path):
                continue
            if not path.is_dir():
                problems.append(f"{path}: not a pod's directory; remove it")
            elif files.is_missing(path / _CONFIG):
                problems.append(
                    f"{path}: has no {_CONFIG}; 'vc pod delete --force {path.name}' removes it"
                )
            else:
                pods.append(path.name)
        return StoreListing(pods=tuple(sorted(pods)), problems=tuple(problems))

    def _foreign_runs(self) -> Iterator[str]:
        for path in self._entries(self._run):
            if not files.is_at_work(path) and files.is_missing(self._pod_config(path.name)):
                yield f"{path}: belongs to no pod; 'vc pod delete --force {path.name}' removes it"

    @staticmethod
    def _entries(root: Path) -> list[Path]:
        folder = root / "pods"
        return sorted(folder.iterdir()) if folder.is_dir() else []

    def _put(self, path: Path, data: str) -> None:
        private_folder(path.parent, f"{_RUN} or {_CONFIG_ROOT}")
        try:
            files.write_atomically(path, data)
        except OSError as error:
            raise StorageError(f"{path} cannot be written: {error.strerror}") from error

    def _delete(self, pod_id: str, container_id: str) -> None:
        if container_id:
            # What survives a reboot goes first: a crash in between leaves no container, only files
            # that are removed with its pod.
            files.remove_folder(self._pod_config(pod_id) / "containers" / container_id)
            files.remove_folder(self._pod_run(pod_id) / "containers" / container_id)
            return
        # The config goes last: as long as it exists, the pod is listed and can be deleted again.
        files.remove_folder(self._pod_run(pod_id))
        files.remove_folder(self._pod_config(pod_id))
        (self._run / "locks" / pod_id).unlink(missing_ok=True)

    # --- paths ------------------------------------------------------------------------------------

    def _pod_config(self, pod_id: str) -> Path:
        return self._pods_config / pod_id

    def _pod_run(self, pod_id: str) -> Path:
        return self._pods_run / pod_id

    def _path(self, pod_id: str, container_id: str, record: Record) -> Path:
        base = self._pod_config(pod_id) if record in _DURABLE else self._pod_run(pod_id)
        folder = base / "containers" / container_id if container_id else base
        return folder / _NAMES.get(record, f"{record.value}.json")

    def _require(self, pod_id: str) -> None:
        """Raises NotFound unless the pod exists, damaged or not."""
        if files.is_missing(self._pod_config(pod_id)) and files.is_missing(self._pod_run(pod_id)):
            raise NotFound(f"no pod {pod_id}; 'vc pod ls' shows those that exist")


def _examine(root: Path, option: str) -> Finding:
    existing = next(path for path in (root, *root.parents) if path.exists())
    if os.access(existing, os.W_OK | os.X_OK):
        return Finding(subject=f"store {option}", verdict=Verdict.GOOD, detail=str(root))
    remedy = (
        f"set storage.fs.{option} to a directory that you own, "
        f"or give yourself access to {existing}"
    )
    return Finding(
        subject=f"store {option}",
        verdict=Verdict.BAD,
        detail=f"{existing} cannot be written by this user",
        remedy=remedy,
    )
