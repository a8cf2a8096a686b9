"""Archives that a guest has sent, which is not trusted."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path
from typing import Any

import pytest

from vc_core.engine import tar
from vc_core.spec.errors import InvalidRequest, StorageError


def packed(*members: dict[str, Any]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for fields in members:
            data = fields.pop("data", b"")
            info = tarfile.TarInfo(fields.pop("name"))
            info.size = len(data)
            for key, value in fields.items():
                setattr(info, key, value)
            archive.addfile(info, io.BytesIO(data))
    return stream.getvalue()


async def unpack(data: bytes, into: Path, keep_owner: bool = False) -> None:
    async def chunks():
        for at in range(0, len(data), 1000):
            yield data[at : at + 1000]

    await tar.unpack(chunks(), into, keep_owner)


@pytest.fixture
def into(tmp_path) -> Path:
    (tmp_path / "into").mkdir()
    (tmp_path / "outside").mkdir()
    return tmp_path / "into"


LINK = {"name": "link", "type": tarfile.SYMTYPE, "linkname": "../outside"}


@pytest.mark.parametrize(
    "members",
    [
        [{"name": "../outside/evil", "data": b"x"}],
        [{"name": "/tmp/evil", "data": b"x"}],
        [{"name": "a/../../outside/evil", "data": b"x"}],
        [{"name": "hard", "type": tarfile.LNKTYPE, "linkname": "../outside/there"}],
        [{"name": "../outside/evil", "type": tarfile.DIRTYPE}],
        [{"name": "../outside/evil", "type": tarfile.SYMTYPE, "linkname": "x"}],
    ],
)
async def test_nothing_is_written_outside(into, members):
    (into.parent / "outside/there").write_text("there")
    with pytest.raises(InvalidRequest, match="which leads out of"):
        await unpack(packed(*members), into)
    assert [path.name for path in (into.parent / "outside").iterdir()] == ["there"]
    assert not Path("/tmp/evil").exists()


async def test_no_link_is_written_through_neither_of_this_archive_nor_of_an_earlier_one(into):
    through = {"name": "link/evil", "data": b"x"}
    with pytest.raises(StorageError):  # the link comes last, where a folder is by then
        await unpack(packed(dict(LINK), {"name": "link", "type": tarfile.DIRTYPE}, dict(through)), into)
    (into / "link").rename(into / "folder")
    await unpack(packed(dict(LINK)), into)
    for member in (through, {"name": "link", "type": tarfile.DIRTYPE, "mode": 0o777}):
        with pytest.raises(InvalidRequest, match="which leads out of"):
            await unpack(packed(dict(member)), into)
    assert list((into.parent / "outside").iterdir()) == []


async def test_set_uid_bits_owners_and_devices_stay_behind(into):
    members = [
        {"name": "strong", "data": b"x", "mode": 0o6755, "uid": 1234},
        {"name": "device", "type": tarfile.CHRTYPE, "devmajor": 1, "devminor": 3},
    ]
    await unpack(packed(*members), into)
    found = (into / "strong").stat()
    assert (found.st_mode & 0o7777, found.st_uid) == (0o755, os.geteuid())
    assert not (into / "device").exists()


async def test_what_is_no_archive_is_told(into):
    with pytest.raises(InvalidRequest, match="the guest has sent no archive"):
        await unpack(b"no archive" * 1000, into)


async def test_a_source_that_fails_is_what_is_told(into):
    async def chunks():
        yield b"half"
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await tar.unpack(chunks(), into, False)


async def test_a_folder_of_the_host_is_packed_as_it_is_and_an_unreadable_one_told(into, tmp_path):
    (into / "file").write_text("content")
    async with tar.packed(into, False, False) as chunks:
        data = b"".join([chunk async for chunk in chunks])
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        assert [(member.name, member.uid) for member in archive] == [("into", 0), ("into/file", 0)]
    with pytest.raises(StorageError, match="cannot be read"):
        async with tar.packed(tmp_path / "none", False, False) as chunks:
            [chunk async for chunk in chunks]
