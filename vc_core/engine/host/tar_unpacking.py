"""Unpacks an archive from a guest below one folder of the host, by descriptors.

The guest chooses names, links and order; a local user may own the folder and swap its contents
meanwhile. Therefore nothing is opened by its path: every folder is opened from its parent's
descriptor without following links, and every file is created in a folder that nobody else can
write, and then moved. Existing files are neither opened for writing nor changed, only replaced.
"""

from __future__ import annotations

import contextlib
import logging
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from msgspec import Struct

from vc_core.engine.host.guest_text import shown
from vc_core.engine.host.tar_reader import Kind, Member, TarReader
from vc_core.spec.errors import AgentError, InvalidRequest, StorageError

log = logging.getLogger(__name__)

_FOLDER = os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_INODES_PER_PAGE = 512

Parts = tuple[str, ...]


class Destination(Struct, frozen=True):
    """The destination of an archive.

    Attributes:
        folder: descriptor of the folder below which everything is written.
        path: path of that folder, for messages.
        asked: the requested name: every entry must have it or be below it; "." for the contents of
            a folder.
        name: its name on this host; empty for entries of the folder itself.
        is_folder: whether the entry must be a folder.
        replaces_file: whether something other than a folder has this name, so that the entry must
            not be a folder.
    """

    folder: int
    path: Path
    asked: str
    name: str
    is_folder: bool = False
    replaces_file: bool = False


class Unpacker:
    """Unpacks one archive."""

    def __init__(self, reader: TarReader, destination: Destination, keep_owner: bool) -> None:
        self._reader = reader
        self._to = destination
        self._top: Parts = (destination.name,) if destination.name else ()
        self._keeps_owner = keep_owner and os.geteuid() == 0
        self._made = _Inodes()
        self._unfinished: list[
            tuple[Parts, os.stat_result, Member]
        ] = []  # folders around the current member
        self._here: _Folder | None = None  # the one that was opened last
        self.devices = 0

    def run(self) -> None:
        """Returns when everything is written.

        Raises:
            AgentError: it is no archive, or contains something that was not asked for.
            InvalidRequest: an existing file is in its way.
            StorageError: writing on the host failed.
        """
        written = 0
        try:
            for member in self._reader:
                parts = self._place(member.parts)
                with self._errors_of(parts):
                    self._finish_folders(parts)
                    written += self._write(member, parts)
            self._finish_folders(None)
        finally:
            self._leave()
        if written and self.devices:
            log.warning("%d devices were left out: they are not copied to the host", self.devices)
        if not written and self.devices:
            raise InvalidRequest(
                f"{shown(self._to.asked)} is a device; devices are not copied to the host"
            )
        if not written:
            raise AgentError(f"the guest has sent nothing that is called {shown(self._to.asked)}")

    def _place(self, parts: Parts) -> Parts:
        if self._to.asked == ".":
            return (*self._top, *parts)
        if parts[:1] != (self._to.asked,):
            wrong, asked = shown("/".join(parts)), shown(self._to.asked)
            raise AgentError(
                f"the guest has sent {wrong}, which is not below {asked}, which was asked for"
            )
        return (*self._top, *parts[1:])

    def _write(self, member: Member, parts: Parts) -> bool:
        """Returns whether the member was written."""
        if len(parts) <= len(self._top):
            self._check_top(member.kind)
        if not parts:
            return True  # the destination folder itself stays unchanged
        if member.kind is Kind.DEVICE:
            self.devices += 1
            return False
        folder, name = self._folder(parts[:-1]), parts[-1]
        if member.kind is Kind.FOLDER:
            self._make_folder(member, parts, folder.handle)
            return True
        with contextlib.suppress(FileNotFoundError):
            if stat.S_ISDIR(os.stat(name, dir_fd=folder.handle, follow_symlinks=False).st_mode):
                raise InvalidRequest(
                    f"{self._named(parts)} is a directory, but not in the container"
                )
        with folder.renamed(name) as (staging, new):
            if member.kind is Kind.FILE:
                self._write_file(member, staging, new)
            elif member.kind is Kind.HARD_LINK:
                self._link(member, staging, new)
            elif member.kind is Kind.SYMBOLIC_LINK:
                os.symlink(member.target, new, dir_fd=staging)
                if self._keeps_owner:
                    os.chown(new, member.uid, member.gid, dir_fd=staging, follow_symlinks=False)
                os.utime(
                    new, (member.mtime_s, member.mtime_s), dir_fd=staging, follow_symlinks=False
                )
            else:
                self._make_fifo(member, staging, new)
        return True

    def _check_top(self, kind: Kind) -> None:
        where = self._named(self._top)
        if kind is not Kind.FOLDER and self._to.is_folder:
            raise InvalidRequest(
                f"{where} must be a directory, but it is a {kind.value} in the container"
            )
        if kind is Kind.FOLDER and self._to.replaces_file:
            raise InvalidRequest(f"{where} is not a directory, but it is one in the container")

    def _make_folder(self, member: Member, parts: Parts, parent: int) -> None:
        name = parts[-1]
        try:
            os.mkdir(name, 0o700, dir_fd=parent)  # gets its own mode after its contents
        except FileExistsError:
            if not stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
                raise InvalidRequest(
                    f"{self._named(parts)} is not a directory, but it is one in the container"
                ) from None
            return
        self._unfinished.append(
            (parts, os.stat(name, dir_fd=parent, follow_symlinks=False), member)
        )

    def _finish_folders(self, around: Parts | None) -> None:
        """Sets the modes and times of folders, except those around a path."""
        while self._unfinished and (
            around is None or around[: len(self._unfinished[-1][0])] != self._unfinished[-1][0]
        ):
            parts, made, member = self._unfinished.pop()
            with self._errors_of(parts):
                handle = os.open(
                    parts[-1], os.O_RDONLY | _FOLDER, dir_fd=self._folder(parts[:-1]).handle
                )
                try:
                    if not os.path.samestat(made, os.fstat(handle)):
                        raise StorageError(
                            f"{self._named(parts)} was replaced while it was written"
                        )
                    self._give(handle, member)
                finally:
                    os.close(handle)

    def _write_file(self, member: Member, staging: int, new: str) -> None:
        handle = os.open(new, _NEW_FILE, 0o600, dir_fd=staging)
        try:
            for offset, length in member.segments:
                os.lseek(handle, offset, os.SEEK_SET)
                for chunk in self._reader.data(length):
                    _write_all(handle, chunk)
            os.ftruncate(handle, member.size)
            self._give(handle, member)
            self._made.add(os.fstat(handle))
        finally:
            os.close(handle)

    def _link(self, member: Member, staging: int, new: str) -> None:
        """Creates a hard link, only to a file of this archive."""
        parts = self._place(member.target_parts)
        try:
            with self._opened(parts[:-1], makes=False) as target:
                os.link(
                    parts[-1], new, src_dir_fd=target, dst_dir_fd=staging, follow_symlinks=False
                )
            linked = os.stat(new, dir_fd=staging, follow_symlinks=False)
        except (FileNotFoundError, IndexError):
            linked = None
        if linked is None or not stat.S_ISREG(linked.st_mode) or linked not in self._made:
            target_name = shown("/".join(member.target_parts))
            raise AgentError(
                f"the guest has sent a hard link to {target_name}, "
                "which it has not sent as a file before"
            )

    def _make_fifo(self, member: Member, staging: int, new: str) -> None:
        os.mkfifo(new, 0o600, dir_fd=staging)
        # With O_RDWR a FIFO does not wait for its other end: fifo(7).
        handle = os.open(
            new, os.O_RDWR | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=staging
        )
        try:
            self._give(handle, member)
        finally:
            os.close(handle)

    def _give(self, handle: int, member: Member) -> None:
        """Sets owner, mode and time, without set-uid and set-gid bits."""
        if self._keeps_owner:
            os.fchown(handle, member.uid, member.gid)
        os.fchmod(handle, member.mode & ~(stat.S_ISUID | stat.S_ISGID))
        os.utime(handle, (member.mtime_s, member.mtime_s))

    def _folder(self, parts: Parts) -> _Folder:
        """Opens a folder below the destination until the next call. Creates missing ones."""
        if self._here is None or self._here.parts != parts:
            with self._opened(parts, makes=True) as handle:
                self._leave()
                self._here = _Folder(parts, os.dup(handle))
        return self._here

    @contextmanager
    def _opened(self, parts: Parts, makes: bool) -> Iterator[int]:
        handle = os.dup(self._to.folder)
        try:
            for count, part in enumerate(parts, 1):
                parent = handle
                try:
                    handle = _enter(parent, part, makes)
                except NotADirectoryError:
                    where = self._named(parts[:count])
                    raise InvalidRequest(
                        f"{where} is a link or not a directory, so nothing is written through it"
                    ) from None
                os.close(parent)
            yield handle
        finally:
            os.close(handle)

    def _leave(self) -> None:
        if self._here is not None:
            self._here.close()
            self._here = None

    def _named(self, parts: Parts) -> str:
        return shown(str(self._to.path.joinpath(*parts)))

    @contextmanager
    def _errors_of(self, parts: Parts) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StorageError(
                f"{self._named(parts)} cannot be written: {error.strerror}"
            ) from error


class _Folder:
    """An open folder with a private subfolder, where other users are unable to swap new files."""

    def __init__(self, parts: Parts, handle: int) -> None:
        self.parts = parts
        self.handle = handle
        self._staging: tuple[str, int] | None = None

    @contextmanager
    def renamed(self, name: str) -> Iterator[tuple[int, str]]:
        """Yields a descriptor and a new name, which becomes `name` here on success.

        Nothing is left on failure.
        """
        staging = self._staged()
        try:
            yield staging, name
            os.rename(name, name, src_dir_fd=staging, dst_dir_fd=self.handle)
        finally:
            with contextlib.suppress(
                FileNotFoundError
            ):  # normal; but two names of one file both stay: rename(2)
                os.unlink(name, dir_fd=staging)

    def _staged(self) -> int:
        if self._staging is None:
            name = f".{os.urandom(8).hex()}.vc-cp"
            os.mkdir(name, 0o700, dir_fd=self.handle)
            handle = os.open(name, os.O_PATH | _FOLDER, dir_fd=self.handle)
            self._staging = name, handle
            if os.fstat(handle).st_uid != os.geteuid():
                raise StorageError(f"{name} was replaced while it was made")
        return self._staging[1]

    def close(self) -> None:
        """Removes the private subfolder."""
        if self._staging is not None:
            name, handle = self._staging
            os.close(handle)
            with contextlib.suppress(
                FileNotFoundError, NotADirectoryError
            ):  # moved by another process
                os.rmdir(name, dir_fd=self.handle)
        os.close(self.handle)


class _Inodes:
    """A set of inode numbers; consecutive ones, as file systems assign them, take one bit each."""

    def __init__(self) -> None:
        self._pages: dict[tuple[int, int], int] = {}

    def add(self, file: os.stat_result) -> None:
        page, bit = divmod(file.st_ino, _INODES_PER_PAGE)
        key = (file.st_dev, page)
        self._pages[key] = self._pages.get(key, 0) | 1 << bit

    def __contains__(self, file: os.stat_result) -> bool:
        page, bit = divmod(file.st_ino, _INODES_PER_PAGE)
        return bool(self._pages.get((file.st_dev, page), 0) >> bit & 1)


def _enter(parent: int, name: str, makes: bool) -> int:
    try:
        return os.open(name, os.O_PATH | _FOLDER, dir_fd=parent)
    except FileNotFoundError:
        if not makes:
            raise
    os.mkdir(name, 0o755, dir_fd=parent)
    return os.open(name, os.O_PATH | _FOLDER, dir_fd=parent)


def _write_all(handle: int, data: memoryview) -> None:
    while data:
        data = data[os.write(handle, data) :]
