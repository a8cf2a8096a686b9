"""A container's files, as the user holds them: read, written, listed, watched and copied while it is in a guest."""

from __future__ import annotations

import asyncio
import contextlib
import enum
import io
import tarfile
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec

from vc_core.engine import tar
from vc_core.engine.arguments import checked_arguments
from vc_core.engine.identity import fresh
from vc_core.engine.process import Process
from vc_core.engine.session import Sessions
from vc_core.engine.states import State, require
from vc_core.spec.errors import InvalidRequest, NotFound
from vc_core.spec.values import Capability, FilesRequest, FilesVerb, Stdio, StreamName

_MISSING = "(os error 2)"  # ENOENT, as the guest's agent tells it


class FileKind(enum.StrEnum):
    """What a file is."""

    FILE = "file"
    FOLDER = "folder"
    LINK = "link"
    SPECIAL = "special"


@dataclass(frozen=True)
class FileInfo:
    """A file of a container.

    Attributes:
        name: in its folder.
        kind: what it is.
        size: in bytes.
        mode: permission bits.
        uid: its owner.
        gid: its group.
        mtime_ns: when it was last changed, since the epoch.
        target: of a symbolic link.
    """

    name: str
    kind: FileKind
    size: int
    mode: int
    uid: int
    gid: int
    mtime_ns: int
    target: str = ""


class Change(enum.StrEnum):
    """What has happened to a file."""

    CREATED = "created"
    WRITTEN = "written"
    DELETED = "deleted"


@dataclass(frozen=True)
class FileChange:
    """Something that has happened.

    Attributes:
        name: of the file in the watched folder; empty for a watched file.
        change: what.
    """

    name: str
    change: Change


class Files:
    """The files of one container. Paths are absolute, in it; links in it lead nowhere else."""

    def __init__(self, sessions: Sessions, pod_id: str, container_id: str = "") -> None:
        """Without an id they are those of the pod's only container."""
        self._sessions = sessions
        self._pod_id = pod_id
        self._container_id = container_id

    @checked_arguments
    async def read(self, path: str) -> bytes:
        """The content of a file.

        Raises:
            NotFound: it is not there.
            InvalidRequest: it is no file.
        """
        packed = io.BytesIO(b"".join([chunk async for chunk in self.archive(path)]))
        with tarfile.open(fileobj=packed) as archive:
            member = archive.next()
            content = archive.extractfile(member) if member is not None and member.isreg() else None
            if content is None:
                raise InvalidRequest(f"{path} is no file in the container; copy_out takes folders, too")
            return content.read()

    @checked_arguments
    async def write(self, path: str, data: bytes | str, mode: int = 0o644) -> None:
        """Writes a file, which belongs to root there; folders that are missing on the way to it are made.

        Args:
            path: of the file.
            data: all that is in it then; text goes as UTF-8.
            mode: its permissions.

        Raises:
            InvalidRequest: it is a folder, or a part of its path is a file.
        """
        if path.endswith("/"):
            raise InvalidRequest(f"{path} is no path of a file; leave the last / away")
        if isinstance(data, str):
            data = data.encode()
        packed, member = io.BytesIO(), tarfile.TarInfo(path.rpartition("/")[2])
        member.size, member.mode, member.mtime = len(data), mode, int(time.time())
        with tarfile.open(fileobj=packed, mode="w", format=tarfile.GNU_FORMAT) as archive:
            archive.addfile(member, io.BytesIO(data))

        async def chunks() -> AsyncGenerator[bytes, None]:
            yield packed.getvalue()

        await self.unarchive(path.rpartition("/")[0] or "/", chunks())

    @checked_arguments
    async def list(self, path: str = "/") -> tuple[FileInfo, ...]:
        """What is in a folder, by name; or the one file.

        Raises:
            NotFound: it is not there.
        """
        told = b"".join([chunk async for chunk in self._output(FilesRequest(FilesVerb.LIST, _checked(path)))])
        return tuple(msgspec.json.decode(line, type=FileInfo) for line in told.splitlines())

    async def watch(self, path: str) -> AsyncGenerator[FileChange, None]:
        """What happens in a folder, or to a file, from now on; ends when that is deleted.

        Raises:
            NotFound: it is not there.
        """
        rest = b""
        async for chunk in self._output(FilesRequest(FilesVerb.WATCH, _checked(path))):
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                if line != b"{}":  # the watch has begun
                    yield msgspec.json.decode(line, type=FileChange)

    async def copy_in(
        self,
        source: Path,
        path: str,
        is_content: bool = False,
        keep_owner: bool = False,
        progress: Callable[[int], None] | None = None,
    ) -> None:
        """Copies a file or folder of the host: into `path` where that is a folder, else as `path`.

        Args:
            source: of the host.
            path: in the container.
            is_content: what is in the folder `source`, into the folder `path`, which is made when it is not there.
            keep_owner: whether owners stay what they are; root otherwise.
            progress: is told how many bytes have been copied.

        Raises:
            NotFound: there is no such source, or no folder to put it in.
        """
        if not source.is_symlink() and not source.exists():
            raise NotFound(f"there is no {source} on this host")
        if not source.name:  # "." and "/"
            source = source.resolve()
        async with tar.packed(source, is_content, keep_owner) as chunks:
            await self.unarchive(path, _counted(chunks, progress), "." if is_content else source.name)

    async def copy_out(
        self,
        path: str,
        target: Path,
        keep_owner: bool = False,
        progress: Callable[[int], None] | None = None,
    ) -> None:
        """Copies a file or folder to the host: into `target` where that is a folder, else as `target`.

        Nothing is written outside of it, whatever the guest says. Set-uid bits and device nodes do not come along.

        Raises:
            NotFound: it is not there, or there is no folder to put it in.
        """
        into, name = (target, "") if target.is_dir() else (target.parent, target.name)
        if not into.is_dir():
            raise NotFound(f"there is no folder {into} on this host")
        await tar.unpack(_counted(self.archive(path, name), progress), into, keep_owner)

    async def archive(self, path: str, name: str = "") -> AsyncGenerator[bytes, None]:
        """A file or folder as a tar archive, in which it is called `name`; its own name when empty.

        Raises:
            NotFound: it is not there.
        """
        async for chunk in self._output(FilesRequest(FilesVerb.READ, _checked(path), name)):
            yield chunk

    async def unarchive(self, path: str, chunks: AsyncIterator[bytes], name: str = ".") -> None:
        """Unpacks a tar archive (GNU or ustar).

        Args:
            path: a folder; made when it is not there.
            chunks: of the archive.
            name: what all in it is called or lies below: unpacked as `path` when that is no folder.

        Raises:
            NotFound: there is no folder to put it in.
            InvalidRequest: it is no archive, or one with paths that lead out of it.
        """
        process = await self._start(FilesRequest(FilesVerb.WRITE, _checked(path), name))
        async with _ended_with(process):
            streams = await process.streams()

            async def feed() -> None:
                async for chunk in chunks:
                    await streams.write(chunk)
                await streams.close_stdin()

            feeding = asyncio.create_task(feed())
            try:
                told = b"".join([data async for _, data in process.output()])
            finally:
                feeding.cancel()
                outcome = (await asyncio.gather(feeding, return_exceptions=True))[0]
            if isinstance(outcome, Exception):
                raise outcome
            await self._require_good(process, told)

    async def _output(self, request: FilesRequest) -> AsyncGenerator[bytes, None]:
        process = await self._start(request)
        async with _ended_with(process):
            told = b""
            async for name, data in process.output():
                if name is StreamName.STDOUT:
                    yield data
                else:
                    told += data
            await self._require_good(process, told)

    async def _start(self, request: FilesRequest) -> Process:
        token = f"_files-{fresh()}"
        async with self._sessions.open(exclusive=False) as session:
            container = self._container_id or await session.only_container()
            await session.store.container_spec(container)
            require(f"pod {session.pod.id}", "reach its files", session.state.state, [State.RUNNING])
            await session.connect()
            if Capability.FILES not in session.capabilities:
                raise InvalidRequest("the guest's agent, as it is chosen, cannot reach files of containers")
            await session.hooks.agent_exec(
                pod=session.pod, container_id=container, token=token, process=request, stdio=Stdio.PIPES
            )
        return Process(self._sessions, self._pod_id, container, token)

    async def _require_good(self, process: Process, told: bytes) -> None:
        if (await process.wait()).code != 0:
            text = told.decode(errors="replace").strip() or "the guest's agent has ended in the middle"
            kind = NotFound if _MISSING in text else InvalidRequest
            raise kind(f"container {process.container_id}: {text}")


@contextlib.asynccontextmanager
async def _ended_with(process: Process) -> AsyncIterator[None]:
    """Nobody is left who reads or writes for somebody who has gone."""
    try:
        yield
    except BaseException:
        await process.close()
        raise
    else:
        await process.close()


async def _counted(
    chunks: AsyncGenerator[bytes, None], progress: Callable[[int], None] | None
) -> AsyncGenerator[bytes, None]:
    count = 0
    async with contextlib.aclosing(chunks):
        async for chunk in chunks:
            yield chunk
            count += len(chunk)
            if progress is not None:
                progress(count)


def _checked(path: str) -> str:
    if not path.startswith("/"):
        raise InvalidRequest(f"{path!r} must be an absolute path in the container")
    return path
