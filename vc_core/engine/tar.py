"""Tar archives between the host and a guest that is not trusted."""

from __future__ import annotations

import asyncio
import os
import stat
import tarfile
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path, PurePosixPath
from typing import IO, Any, cast

from vc_core.spec.errors import InvalidRequest, StorageError
from vc_core.spec.programs import find_program, program_environment

_CHUNK = 256 << 10
_CHANGED = 1  # tar(1): a file has changed while it was read
# Python 3.11.4 and later ask which filter is meant; ours has been at work by then.
_TRUSTED: dict[str, Any] = {"filter": "fully_trusted"} if hasattr(tarfile, "fully_trusted_filter") else {}


@asynccontextmanager
async def packed(source: Path, is_content: bool, keep_owner: bool) -> AsyncIterator[AsyncGenerator[bytes, None]]:
    """A file or folder of the host as an archive, with links and holes.

    Raises:
        StorageError: it cannot be read.
    """
    folder, name = (source, ".") if is_content else (source.parent, source.name)
    owner = () if keep_owner else ("--owner=0", "--group=0")
    words = ("-c", "--format=gnu", "--sparse", "--numeric-owner", *owner, "-C", folder, "--", name)
    pipe = asyncio.subprocess.PIPE
    program = find_program("tar")
    if program is None:
        raise StorageError("tar is not installed, which is needed to copy; 'apt-get install tar'")
    process = await asyncio.create_subprocess_exec(
        program, *words, stdout=pipe, stderr=pipe, start_new_session=True, env=program_environment()
    )
    output, errors = cast(asyncio.StreamReader, process.stdout), cast(asyncio.StreamReader, process.stderr)

    async def chunks() -> AsyncGenerator[bytes, None]:
        while chunk := await output.read(_CHUNK):
            yield chunk
        told = await errors.read()
        if await process.wait() > _CHANGED:
            raise StorageError(f"{source} cannot be read: {told.decode(errors='replace').strip().splitlines()[0]}")

    try:
        yield chunks()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def unpack(chunks: AsyncGenerator[bytes, None], into: Path, keep_owner: bool) -> None:
    """Unpacks an archive that somebody else has made, below a folder and nowhere else.

    Raises:
        InvalidRequest: a path or link in it leads out of the folder, or it is no archive; what came before stays.
        StorageError: the host cannot write.
    """
    reading, writing = os.pipe()
    work = asyncio.create_task(asyncio.to_thread(_unpack, reading, into, keep_owner))
    try:
        async with aclosing(chunks):
            async for chunk in chunks:
                await asyncio.to_thread(_write_all, writing, chunk)
    except BrokenPipeError:
        pass  # the thread has given up and says why
    except BaseException:
        os.close(writing)
        await asyncio.gather(work, return_exceptions=True)  # what it says of half an archive is no news
        raise
    os.close(writing)
    await work


def _unpack(handle: int, into: Path, keep_owner: bool) -> None:
    try:
        with os.fdopen(handle, "rb") as stream, tarfile.open(fileobj=cast(IO[bytes], stream), mode="r|") as archive:
            _unpack_members(archive, into, keep_owner)
            while stream.read(_CHUNK):
                pass  # what stands behind the last member
    except tarfile.TarError as error:
        raise InvalidRequest(f"the guest has sent no archive: {error}") from error
    except OSError as error:
        raise StorageError(f"{error.filename or into} cannot be written: {error.strerror}") from error


def _unpack_members(archive: tarfile.TarFile, into: Path, keep_owner: bool) -> None:
    """Symbolic links come last, so that nothing is written through one; folders' modes after what is in them."""
    links: list[tarfile.TarInfo] = []
    folders: list[tarfile.TarInfo] = []
    for member in archive:
        if not keep_owner:
            member.uid, member.gid, member.uname, member.gname = os.geteuid(), os.getegid(), "", ""
            member.mode &= ~(stat.S_ISUID | stat.S_ISGID)
        if member.isdir():
            _place(into, member.name, is_folder=True).mkdir(parents=True, exist_ok=True)
            folders.append(member)
        elif member.issym():
            links.append(member)
        else:
            _unpack_file(archive, member, into)
    for member in links:
        place = _cleared(_place(into, member.name))
        place.symlink_to(member.linkname)
        if os.geteuid() == 0:
            os.chown(place, member.uid, member.gid, follow_symlinks=False)
    for member in reversed(folders):
        place = _place(into, member.name, is_folder=True)
        if os.geteuid() == 0:
            os.chown(place, member.uid, member.gid)
        place.chmod(member.mode)
        os.utime(place, (member.mtime, member.mtime))


def _unpack_file(archive: tarfile.TarFile, member: tarfile.TarInfo, into: Path) -> None:
    """A file or a hard link to one; devices and the like are left out."""
    place = _place(into, member.name)
    if member.islnk():
        os.link(_place(into, member.linkname), _cleared(place), follow_symlinks=False)
    elif member.isreg():
        _cleared(place)
        archive.extract(member, into, numeric_owner=True, **_TRUSTED)


def _place(into: Path, name: str, is_folder: bool = False) -> Path:
    """Where a member goes. No folder on the way may be a link, not even one that was there before."""
    parts = PurePosixPath(name)
    place = into / parts
    between = [place.parents[number] for number in range(len(parts.parts) - 1)] + [place] * is_folder
    if parts.is_absolute() or ".." in parts.parts or any(folder.is_symlink() for folder in between):
        raise InvalidRequest(
            f"the guest has sent the path {name}, which leads out of {into}; what came before is there"
        )
    return place


def _cleared(path: Path) -> Path:
    if path.is_symlink() or path.is_file():
        path.unlink()
    return path


def _write_all(handle: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(handle, view) :]
