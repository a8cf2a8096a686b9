"""Tar archives between the host and an untrusted guest."""

from __future__ import annotations

import asyncio
import io
import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import TypeVar, cast

from vc_core.driver_kit.host_process import end_child
from vc_core.driver_kit.programs import find_program, program_environment
from vc_core.engine.host.tar_reader import Kind, TarReader
from vc_core.engine.host.tar_unpacking import Destination, Unpacker
from vc_core.spec.errors import InvalidRequest, StorageError

T = TypeVar("T")

_CHUNK = 256 << 10
_CHANGED = 1  # tar(1): a file changed while it was read
_COMPLAINT_BYTES = 4096


@asynccontextmanager
async def packed(
    folder: Path, name: str, called: str, keep_owner: bool
) -> AsyncIterator[AsyncGenerator[bytes, None]]:
    """Packs a file or folder of the host as an archive, with links and holes, until the block ends.

    Args:
        folder: a folder of the host.
        name: name in the folder; "." is the folder itself.
        called: its name in the archive; different from `name` where that is ".".
        keep_owner: whether owners are kept; root otherwise.

    Raises:
        StorageError: reading failed.
    """
    owner = () if keep_owner else ("--owner=0", "--group=0")
    escaped = re.sub(r"([\\&,\n])", r"\\\1", called)
    renamed = (
        (f"--transform=s,^\\.,{escaped},S",) if called != name else ()
    )  # S: not in the targets of symbolic links
    words = (
        "-c",
        "--format=gnu",
        "--sparse",
        "--numeric-owner",
        *owner,
        *renamed,
        "-C",
        folder,
        "--",
        name,
    )
    pipe = asyncio.subprocess.PIPE
    program = find_program("tar")
    if program is None:
        raise StorageError("tar is not installed, which is needed to copy; 'apt-get install tar'")
    process = await asyncio.create_subprocess_exec(
        program,
        *words,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=pipe,
        stderr=pipe,
        start_new_session=True,
        env=program_environment(),
    )
    output, errors = (
        cast(asyncio.StreamReader, process.stdout),
        cast(asyncio.StreamReader, process.stderr),
    )

    async def chunks() -> AsyncGenerator[bytes, None]:
        complaining = asyncio.create_task(
            _first_bytes(errors)
        )  # or tar blocks when its stderr is full
        try:
            while chunk := await output.read(_CHUNK):
                yield chunk
            lines = (await complaining).decode(errors="replace").strip().splitlines()
        finally:
            complaining.cancel()
            await asyncio.gather(complaining, return_exceptions=True)
        if await process.wait() > _CHANGED:
            raise StorageError(
                f"{folder / name} cannot be read: {lines[0] if lines else 'tar failed'}"
            )

    given = chunks()
    try:
        yield given
    finally:
        await given.aclose()
        await end_child(process)


async def _first_bytes(stream: asyncio.StreamReader) -> bytes:
    """Reads the whole stream and returns its beginning."""
    kept = b""
    while data := await stream.read(_CHUNK):
        kept += data[: _COMPLAINT_BYTES - len(kept)]
    return kept


async def unpack(
    chunks: AsyncGenerator[bytes, None], destination: Destination, keep_owner: bool
) -> None:
    """Unpacks an untrusted archive below the destination only. See `Unpacker`.

    Raises:
        AgentError: it is no archive, or contains something that was not asked for; earlier entries
            stay.
        InvalidRequest: an existing file is in its way.
        StorageError: writing on the host failed.
    """
    await _read(chunks, lambda reader: Unpacker(reader, destination, keep_owner).run())


async def only_file(chunks: AsyncGenerator[bytes, None], path: str, limit: int) -> bytes:
    """Returns the content of the only file of an archive.

    Raises:
        AgentError: it is no archive.
        InvalidRequest: its entry is no file, or has more bytes than `limit`.
    """

    def collect(reader: TarReader) -> bytes:
        content = io.BytesIO()
        count = 0
        for member in reader:
            count += 1
            if member.kind is not Kind.FILE or count > 1:
                raise InvalidRequest(
                    f"{path} is not a file in the container; use copy_out for directories"
                )
            if member.size > limit:
                raise InvalidRequest(
                    f"{path} has {member.size} bytes, and read gives {limit} at most; use copy_out"
                )
            for offset, length in member.segments:
                content.write(bytes(offset - content.tell()))
                for chunk in reader.data(length):
                    content.write(chunk)
            content.write(bytes(member.size - content.tell()))
        if not count:
            raise InvalidRequest(f"{path} is not a file in the container")
        return content.getvalue()

    return await _read(chunks, collect)


async def _read(chunks: AsyncGenerator[bytes, None], work: Callable[[TarReader], T]) -> T:
    """Reads an archive in a thread while it arrives.

    The thread has ended when this returns, cancelled or not.
    """
    loop = asyncio.get_running_loop()
    pulling: set[asyncio.Task[object]] = set()
    is_over = False

    async def following() -> bytes:
        task = cast("asyncio.Task[object]", asyncio.current_task())
        if is_over:
            raise asyncio.CancelledError
        pulling.add(task)
        try:
            return await anext(chunks, b"")
        finally:
            pulling.discard(task)

    def pull() -> bytes:
        return asyncio.run_coroutine_threadsafe(following(), loop).result()

    async with aclosing(chunks):
        working = loop.run_in_executor(None, lambda: work(TarReader(pull)))
        try:
            return await asyncio.shield(working)
        except asyncio.CancelledError:
            is_over = True
            for task in tuple(pulling):
                task.cancel()
            await asyncio.gather(
                working, return_exceptions=True
            )  # an incomplete archive: its error is a consequence
            raise
