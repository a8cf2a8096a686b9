"""The initrd's archive format: `newc` cpio, written so that equal inputs give equal bytes.

Format: Documentation/driver-api/early-userspace/buffer-format.rst of the Linux kernel.
"""

from __future__ import annotations

import stat
from dataclasses import dataclass, field
from pathlib import PurePosixPath


@dataclass
class Archive:
    """Files and folders by absolute path; parents are made as needed."""

    _entries: dict[str, tuple[int, bytes]] = field(default_factory=dict)

    def add_file(self, path: str, content: bytes, mode: int = 0o644) -> None:
        """Adds a regular file.

        Args:
            path: absolute path in the guest.
            content: its bytes.
            mode: permission bits.
        """
        self._add(path, stat.S_IFREG | mode, content)

    def add_folder(self, path: str) -> None:
        """Adds an empty folder with mode 0755."""
        self._add(path, stat.S_IFDIR | 0o755, b"")

    def to_bytes(self) -> bytes:
        """Returns the archive: entries sorted by name, without times, all owned by root."""
        parts = [
            _entry(number, name, *self._entries[name])
            for number, name in enumerate(sorted(self._entries), 1)
        ]
        parts.append(_entry(0, "TRAILER!!!", 0, b""))
        return b"".join(parts)

    def _add(self, path: str, mode: int, content: bytes) -> None:
        name = path.strip("/")
        for parent in PurePosixPath(name).parents:
            if str(parent) != ".":
                self._entries.setdefault(str(parent), (stat.S_IFDIR | 0o755, b""))
        self._entries[name] = (mode, content)


def _entry(inode: int, name: str, mode: int, content: bytes) -> bytes:
    links = 2 if stat.S_ISDIR(mode) else 1
    encoded = name.encode() + b"\0"
    #         ino   mode  uid gid nlink  mtime filesize    maj min rmaj rmin namesize     check
    numbers = (inode, mode, 0, 0, links, 0, len(content), 0, 0, 0, 0, len(encoded), 0)
    header = b"070701" + b"".join(b"%08X" % number for number in numbers)
    return _padded(header + encoded) + _padded(content)


def _padded(data: bytes) -> bytes:
    return data + b"\0" * (-len(data) % 4)
