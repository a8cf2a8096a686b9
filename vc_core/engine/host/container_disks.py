"""Files that a container writes and that are kept until the container or its pod is removed.

<data.dir>/<pod>/<container>.log     the output of its streams
<data.dir>/<pod>/<container>.disk    its changes to its root file system
"""

from __future__ import annotations

import asyncio
import os
import shutil
from pathlib import Path

from vc_core.defaults import DataDefaults
from vc_core.driver_kit.ownership import private_folder
from vc_core.driver_kit.programs import find_program, program_environment
from vc_core.spec.errors import InvalidRequest

_MIB = 1 << 20


class ContainerDisks:
    """The files below one folder."""

    def __init__(self, defaults: DataDefaults) -> None:
        self._folder = defaults.dir
        self._log_bytes = defaults.log_mib * _MIB

    def log(self, pod_id: str, container_id: str) -> Path:
        """Returns the path of a container's log, which need not exist."""
        return self._folder / pod_id / f"{container_id}.log"

    def make_log(self, pod_id: str, container_id: str) -> Path:
        """Creates a container's log if it does not exist; output of an earlier run is kept.

        Raises:
            InvalidRequest: the folder belongs to another user.
        """
        path = self.log(pod_id, container_id)
        self._make_folder(path.parent)
        if not path.exists():
            half = path.with_suffix(".half")
            with half.open("wb") as stream:  # sparse: takes up only what is written
                os.fchmod(stream.fileno(), 0o600)
                stream.truncate(self._log_bytes)
            half.replace(path)
        return path

    async def make_disk(self, pod_id: str, container_id: str, size: int) -> Path:
        """Creates a container's disk with an empty ext4 if it does not exist; the file is sparse.

        Raises:
            InvalidRequest: mkfs.ext4 is missing, or finds the disk too small.
        """
        path = self._folder / pod_id / f"{container_id}.disk"
        self._make_folder(path.parent)
        if path.exists():
            return path
        program = find_program("mkfs.ext4")
        if program is None:
            raise InvalidRequest(
                "mkfs.ext4 is not installed, which a disk needs; 'apt-get install e2fsprogs'"
            )
        half = path.with_suffix(".half")
        with half.open("wb") as stream:
            os.fchmod(stream.fileno(), 0o600)
            stream.truncate(size)
        words = ("-q", "-F", "-m", "0", "-E", "lazy_itable_init=1,root_owner=0:0", half)
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(
            program,
            *words,
            stdin=asyncio.subprocess.DEVNULL,
            stderr=pipe,
            env=program_environment(),
        )
        _, told = await process.communicate()
        if process.returncode != 0:
            half.unlink()
            first = told.decode(errors="replace").strip().partition("\n")[0]
            raise InvalidRequest(f"a disk of {size} bytes cannot be made: {first}")
        half.replace(path)
        return path

    def copy_log(self, source: Path, pod_id: str, container_id: str) -> Path:
        """Gives a container a copy of another one's log."""
        path = self.log(pod_id, container_id)
        self._make_folder(path.parent)
        copy_sparse(source, path)
        return path

    @staticmethod
    def whose_log(pod_id: str, path: Path) -> str:
        """Returns the container of a pod with this log; empty for any other file."""
        return path.stem if path.suffix == ".log" and path.parent.name == pod_id else ""

    def remove(self, pod_id: str, container_id: str = "") -> None:
        """Removes the files of a container, or of a whole pod. What does not exist is no error."""
        if container_id:
            for path in (self._folder / pod_id).glob(f"{container_id}.*"):
                if path.stem == container_id:
                    path.unlink()
        elif (self._folder / pod_id).is_dir():
            shutil.rmtree(self._folder / pod_id)

    def _make_folder(self, folder: Path) -> None:
        private_folder(self._folder, "data.dir")
        private_folder(folder, "data.dir")


def copy_sparse(source: Path, target: Path) -> None:
    """Copies the data of a sparse file, and keeps its holes."""
    with source.open("rb") as read, target.open("wb") as written:
        os.fchmod(written.fileno(), 0o600)
        size = os.fstat(read.fileno()).st_size
        written.truncate(size)
        at = 0
        while at < size:
            try:
                begin = os.lseek(read.fileno(), at, os.SEEK_DATA)
            except OSError:  # ENXIO: only a hole follows, lseek(2)
                return
            at = os.lseek(read.fileno(), begin, os.SEEK_HOLE)
            os.lseek(read.fileno(), begin, os.SEEK_SET)
            os.lseek(written.fileno(), begin, os.SEEK_SET)
            left = at - begin
            while left:
                left -= os.sendfile(written.fileno(), read.fileno(), None, left)
