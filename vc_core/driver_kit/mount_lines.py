"""Reads the tables of mounts of proc(5), whose names other users of the host choose."""

from __future__ import annotations

from pathlib import Path


def mount_lines(file: Path) -> list[str]:
    """Returns the lines of a table such as /proc/self/mountinfo.

    The kernel escapes blanks, line feeds and backslashes of a mount point, and nothing else: a name
    may be no UTF-8, which becomes surrogates, or have characters at which `str.splitlines` splits.
    """
    return file.read_bytes().decode(errors="surrogateescape").split("\n")[:-1]
