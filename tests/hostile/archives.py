"""Archives that a hostile guest sends instead of a file that was asked for."""

from __future__ import annotations

import io
import tarfile

from tests.hostile.agent import Answer
from tests.hostile.answers import writes, writes_on


def archive(*members: tarfile.TarInfo, content: bytes = b"", end: bool = True) -> bytes:
    """A tar archive; each file in it has the same content."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for member in members:
            member.size = len(content) if member.isfile() else 0
            tar.addfile(member, io.BytesIO(content))
    data = packed.getvalue()
    return data if end else data.rstrip(b"\0")


def member(
    name: str, kind: bytes = tarfile.REGTYPE, target: str = "", mode: int = 0o4777
) -> tarfile.TarInfo:
    """One entry; set-uid, and writable by all."""
    made = tarfile.TarInfo(name)
    made.type, made.linkname, made.mode = kind, target, mode
    return made


def _huge(name: str, size: int, kind: bytes = tarfile.REGTYPE) -> bytes:
    made = member(name, kind)
    made.size = size
    return made.tobuf(tarfile.GNU_FORMAT)


_OWNED = b"owned"

ARCHIVES: dict[str, Answer] = {
    "a-neighbour": writes(archive(member(".bashrc"), content=_OWNED)),
    "a-path-above": writes(archive(member("../.bashrc"), content=_OWNED)),
    "a-path-above-below": writes(archive(member("hosts/../../.bashrc"), content=_OWNED)),
    "an-absolute-path": writes(archive(member("/tmp/hostile-owned"), content=_OWNED)),
    "the-folder-itself": writes(archive(member(".", tarfile.DIRTYPE))),
    "a-link-and-what-is-behind-it": writes(
        archive(member("hosts", tarfile.SYMTYPE, ".."), member("hosts/.bashrc"), content=_OWNED)
    ),
    "a-hard-link-to-a-neighbour": writes(archive(member("hosts", tarfile.LNKTYPE, ".bashrc"))),
    "a-fifo": writes(archive(member("hosts", tarfile.FIFOTYPE))),
    "a-device": writes(archive(member("hosts", tarfile.BLKTYPE))),
    "two-files": writes(archive(member("hosts"), member("other"), content=_OWNED)),
    "a-name-without-end": writes_on(
        b"a" * (64 << 10), _huge("hosts", 1 << 33, tarfile.GNUTYPE_LONGNAME)
    ),
    "a-negative-size": writes(_huge("hosts", -1)),
    "an-impossible-size": writes(_huge("hosts", 1 << 63)),
    "zeros-without-end": writes_on(bytes(64 << 10)),
    "headers-without-end": writes_on(_huge("", 0, tarfile.XGLTYPE)),
    "no-archive": writes(b"hello" * 1000),
    "half-an-archive": writes(archive(member("hosts"), content=bytes(4096))[:1024]),
}
