"""The API of a container's files: read, write, list, watch and copy them while it is in a guest."""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import posixpath
import signal
import tarfile
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable

from vc_core.driver_kit.timeouts import timeout_after
from vc_core.engine.api import copy_paths
from vc_core.engine.api.arguments import checked_arguments
from vc_core.engine.api.file_entries import FileChange, FileInfo, Lines, Listing, file_change
from vc_core.engine.api.process import Process
from vc_core.engine.host import tar_stream
from vc_core.engine.host.guest_text import shown
from vc_core.engine.session.sessions import Sessions
from vc_core.engine.state.ids import fresh
from vc_core.engine.state.states import State, require
from vc_core.spec.errors import AgentError, InvalidRequest, NotFound, OperationTimeout, VcError
from vc_core.spec.values import Capability, FilesRequest, FilesVerb, StreamName

MOST_READ_BYTES = 64 << 20
_MOST_MESSAGE_BYTES = 4096
_MOST_KILL_S = 2.0
_DEADLINE = "agent_serve_files"
_BEGUN = b"{}"  # the first line of a watch

# The exit codes of a process that serves a FilesRequest, from agent_serve_files
# in vc_core/spec/agent.py.
_ERRORS: dict[int, type[VcError]] = {2: NotFound, 3: InvalidRequest}


class Files:
    """The files of one container. Paths are absolute and resolved inside it, including links."""

    def __init__(self, sessions: Sessions, pod_id: str, container_id: str = "") -> None:
        """Without a container id, the files are those of the pod's only container."""
        self._sessions = sessions
        self._pod_id = pod_id
        self._container_id = container_id

    @checked_arguments
    async def read(self, path: str) -> bytes:
        """Returns the content of a file of at most 64 MiB; use `copy_out` for larger ones.

        Files of /proc and /sys are supported.

        Raises:
            NotFound: it does not exist.
            InvalidRequest: it is not a file, or too large.
        """
        return await tar_stream.only_file(self.archive(path), path, MOST_READ_BYTES)

    @checked_arguments
    async def write(self, path: str, data: bytes | str, mode: int = 0o644) -> None:
        """Writes a file, owned by root in the container; creates missing parent folders.

        Args:
            path: path of the file.
            data: its new content; text is encoded as UTF-8.
            mode: its permission bits.

        Raises:
            InvalidRequest: it is a folder, or a part of its path is a file.
        """
        if path.endswith("/"):
            raise InvalidRequest(f"{path} is not a path of a file; remove the trailing slash")
        if isinstance(data, str):
            data = data.encode()
        above, up, below = _checked(path).rpartition(
            "/../"
        )  # the part before ".." must exist to be resolved
        packed, member = io.BytesIO(), tarfile.TarInfo(posixpath.normpath(below).lstrip("/"))
        member.size, member.mode, member.mtime = len(data), mode, int(time.time())
        with tarfile.open(fileobj=packed, mode="w", format=tarfile.GNU_FORMAT) as archive:
            archive.addfile(member, io.BytesIO(data))

        async def chunks() -> AsyncGenerator[bytes, None]:
            yield packed.getvalue()

        await self.unarchive(f"{above}{up}" if up else "/", chunks())

    @checked_arguments
    async def list(self, path: str = "/") -> tuple[FileInfo, ...]:
        """Returns the files of a folder, at most 100000, sorted by name; or the one file.

        Raises:
            NotFound: it does not exist.
            AgentError: there are more.
        """
        listing = Listing()
        async with contextlib.aclosing(
            self._output(FilesRequest(verb=FilesVerb.LIST, path=_checked(path)))
        ) as chunks:
            async for chunk in chunks:
                listing.add(chunk)
        return tuple(listing.entries)

    async def watch(self, path: str) -> AsyncGenerator[FileChange, None]:
        """Yields the changes in a folder, or of a file, from now on; ends when it is deleted.

        Raises:
            NotFound: it does not exist.
        """
        lines = Lines()
        async with contextlib.aclosing(
            self._output(FilesRequest(verb=FilesVerb.WATCH, path=_checked(path)))
        ) as chunks:
            async for chunk in chunks:
                for line in lines.add(chunk):
                    if line != _BEGUN:
                        yield file_change(line)

    async def copy_in(
        self,
        source: str | os.PathLike[str],
        path: str,
        is_content: bool = False,
        keep_owner: bool = False,
        progress: Callable[[int], None] | None = None,
    ) -> None:
        """Copies a file or folder of the host into the container, as `docker cp` does.

        The copy is placed into `path` where that is a folder, otherwise it becomes `path`.

        Args:
            source: path on the host. "folder/." means the contents of the folder; a link is
                followed when it ends in "/". A Path drops such an ending; pass text.
            path: path in the container. One that ends in "/" must be a folder.
            is_content: like "/." at the end of the source: its contents are copied into the folder
                `path`, which is created when it does not exist.
            keep_owner: whether owners are kept; root otherwise.
            progress: called with the number of bytes copied so far.

        Raises:
            NotFound: there is no such source, or no folder to copy it into.
            InvalidRequest: a folder would replace a file, or a file a folder.
        """
        text = os.fspath(source)
        folder, name, called = copy_paths.source(f"{text}/." if is_content else text)
        is_content = called == copy_paths.CONTENT
        # A folder for copied contents need not exist, also when its path ends in "/".
        into = copy_paths.without_end(path) if is_content else path
        async with (
            tar_stream.packed(folder, name, called, keep_owner) as chunks,
            contextlib.aclosing(_counted(chunks, progress)) as counted,
        ):
            await self.unarchive(into, counted, called)

    async def copy_out(
        self,
        path: str,
        target: str | os.PathLike[str],
        keep_owner: bool = False,
        progress: Callable[[int], None] | None = None,
    ) -> None:
        """Copies a file or folder of the container to the host, as `docker cp` does.

        The copy is placed into `target` where that is a folder, otherwise it becomes `target`.
        Nothing else is written or changed, whatever the guest sends. Set-uid bits and device nodes
        are not copied. Existing folders keep owner, mode and time.

        Args:
            path: path in the container. "/folder/." means the contents of the folder; a link is
                followed when it ends in "/".
            target: path on the host. One that ends in "/" must be a folder. A link to a folder is
                followed only then.
            keep_owner: whether owners are kept, if this user may change owners; otherwise files
                belong to this user.
            progress: called with the number of bytes copied so far.

        Raises:
            NotFound: it does not exist, or there is no folder to copy it into.
            InvalidRequest: a folder would replace a file, or a file a folder; the target is a
                device or a link.
            AgentError: the guest sent something else.
            StorageError: writing on the host failed.
        """
        _checked(path)
        with copy_paths.opened(path, os.fspath(target)) as destination:
            chunks = _counted(self.archive(path), progress)
            await tar_stream.unpack(chunks, destination, keep_owner)

    async def archive(self, path: str, name: str = "") -> AsyncGenerator[bytes, None]:
        """Yields a file or folder as a tar archive, with the entry `name`; its own name when empty.

        The contents of "/folder/." are below the entry ".".

        Raises:
            NotFound: it does not exist.
        """
        request = FilesRequest(
            verb=FilesVerb.READ, path=_checked(path), name=name or copy_paths.name_of(path)
        )
        async with contextlib.aclosing(self._output(request)) as chunks:
            async for chunk in chunks:
                yield chunk

    async def unarchive(self, path: str, chunks: AsyncIterator[bytes], name: str = ".") -> None:
        """Unpacks a tar archive (GNU or ustar).

        Args:
            path: a folder; created when it does not exist, unless it ends in "/".
            chunks: data of the archive.
            name: the entry that all others are below: unpacked as `path` when that is no folder.

        Raises:
            NotFound: there is no folder to unpack it into.
            InvalidRequest: it is no archive, or has paths that lead out of it.
        """
        process, limit_s = await self._start(
            FilesRequest(verb=FilesVerb.WRITE, path=_checked(path), name=name)
        )
        async with _ended_with(process):
            await process.streams()

            async def feed() -> None:
                async for chunk in chunks:
                    async with self._deadline(limit_s):
                        await process.write(chunk)
                async with self._deadline(limit_s):
                    await process.close_stdin()

            message = bytearray()

            async def listen() -> None:
                async for _, data in process.output():
                    message.extend(data[: _MOST_MESSAGE_BYTES - len(message)])

            feeding, listening = asyncio.create_task(feed()), asyncio.create_task(listen())
            try:
                await asyncio.wait({feeding, listening}, return_when=asyncio.FIRST_COMPLETED)
                if not listening.done():
                    feeding.result()  # raises the failure of the read
                    async with self._deadline(limit_s):
                        await listening
                listening.result()
            finally:
                feeding.cancel()
                listening.cancel()
                await asyncio.gather(feeding, listening, return_exceptions=True)
            await self._require_good(process, bytes(message), limit_s)

    async def _output(self, request: FilesRequest) -> AsyncGenerator[bytes, None]:
        process, limit_s = await self._start(request)
        async with _ended_with(process):
            message = bytearray()
            async with contextlib.aclosing(process.output()) as output:
                while True:
                    async with self._deadline(
                        limit_s if request.verb is not FilesVerb.WATCH else None
                    ):
                        chunk = await anext(output, None)
                    if chunk is None:
                        break
                    name, data = chunk
                    if name is StreamName.STDOUT:
                        yield data
                    else:
                        message += data[: _MOST_MESSAGE_BYTES - len(message)]
            await self._require_good(process, bytes(message), limit_s)

    @contextlib.asynccontextmanager
    async def _deadline(self, limit_s: float | None) -> AsyncIterator[None]:
        """Limits the time in which the guest makes the next progress."""
        try:
            async with timeout_after(limit_s):
                yield
        except TimeoutError as error:
            raise OperationTimeout(
                limit_s or 0, _DEADLINE, "the guest's agent", self._pod_id
            ) from error

    async def _start(self, request: FilesRequest) -> tuple[Process, float]:
        """Returns the process that serves the request, and its idle limit in seconds."""
        token = f"_files-{fresh()}"
        async with self._sessions.open(exclusive=False) as session:
            container = self._container_id or await session.only_container()
            await session.store.container_spec(container)
            require(
                f"pod {session.pod.id}", "reach its files", session.state.state, [State.RUNNING]
            )
            await session.connection.open()
            if Capability.FILES not in session.capabilities:
                raise InvalidRequest(
                    "the guest's agent, as it is chosen, cannot reach files of containers"
                )
            await session.hooks.agent_serve_files(
                pod=session.pod, container_id=container, token=token, request=request
            )
            limit_s = session.deadlines.of(_DEADLINE)
        return Process(self._sessions, self._pod_id, container, token), limit_s

    async def _require_good(self, process: Process, message: bytes, limit_s: float) -> None:
        async with self._deadline(limit_s):
            status = await process.wait()
        if status.code != 0:
            lines = message.decode(errors="replace").strip().splitlines()
            text = shown(lines[0]) if lines else "the guest's agent has ended in the middle"
            raise _ERRORS.get(status.code, AgentError)(f"container {process.container_id}: {text}")


@contextlib.asynccontextmanager
async def _ended_with(process: Process) -> AsyncIterator[None]:
    """Ends the process in the guest when its caller is done with it."""
    try:
        yield
    except BaseException:
        # A guest that does not answer is not waited for.
        with contextlib.suppress(VcError, TimeoutError):
            async with timeout_after(_MOST_KILL_S):
                await process.kill(signal.SIGKILL)
        raise
    finally:
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
    try:
        path.encode()
    except UnicodeEncodeError:
        raise InvalidRequest(f"{path!r} is not UTF-8; copy the directory that it is in") from None
    if "\0" in path:
        raise InvalidRequest(f"{path!r} is not a path: it has a NUL byte")
    return path
