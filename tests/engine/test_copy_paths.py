"""What SOURCE and TARGET of a copy mean: the rules of docker cp."""

from __future__ import annotations

import asyncio
import io
import os
import socket
import tarfile

import pytest

from tests.engine.archives import FOLDER, copy, packed
from vc_core.engine.api import copy_paths
from vc_core.engine.host import tar_stream
from vc_core.spec.errors import InvalidRequest, NotFound, StorageError

ONE, TREE = (
    [{"name": "x", "data": b"x"}],
    [{"name": "x", "type": FOLDER}, {"name": "x/y", "data": b"y"}],
)
CONTENT = [{"name": ".", "type": FOLDER}, {"name": "./y", "data": b"y"}]


@pytest.mark.parametrize(
    ("path", "members", "target", "made"),
    [
        ("/x", ONE, "new", ["new"]),
        ("/x", ONE, "folder", ["folder/x"]),
        ("/x", ONE, "folder/", ["folder/x"]),
        ("/x", ONE, "file", ["file"]),
        ("/x", ONE, "new/", "must be a directory, but it is a file in the container"),
        ("/x", ONE, "file/", "not a directory on this host"),
        ("/x", ONE, "none/new", NotFound),
        ("/x/", TREE, "new", ["new/y"]),
        ("/x", TREE, "new/", ["new/y"]),
        ("/x", TREE, "folder/.", ["folder/x/y"]),
        ("/x", TREE, "file", "is not a directory, but it is one in the container"),
        ("/x", TREE, "none/new", NotFound),
        ("/x/.", CONTENT, "new", ["new/y"]),
        ("/x/.", CONTENT, "folder", ["folder/y"]),
        ("/x/.", CONTENT, "file", "is not a directory, but it is one in the container"),
        ("/x/.", [{"name": ".", "data": b"x"}], "new", "must be a directory"),
        ("/x", ONE, "", "needs a target"),
        ("/x", ONE, "/dev/null", "is a device"),
    ],
)
async def test_where_a_copy_from_a_container_goes(
    tmp_path, monkeypatch, path, members, target, made
):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("mine")
    monkeypatch.chdir(tmp_path)
    if isinstance(made, list):
        await copy(packed(*members), path, target)
        assert all((tmp_path / name).read_text() in ("x", "y") for name in made)
    elif isinstance(made, str):
        with pytest.raises(InvalidRequest, match=made):
            await copy(packed(*members), path, target)
    else:
        with pytest.raises(made, match="there is no directory"):
            await copy(packed(*members), path, target)


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("folder", ["folder", "folder/y"]),
        ("folder/", ["folder", "folder/y"]),
        ("folder/.", [".", "./y"]),
        ("folder/../folder", ["folder", "folder/y"]),
        ("link", ["link"]),
        ("link/", ["link", "link/y"]),
        ("link/.", [".", "./y"]),
        ("li,&\\nk/", ["li,&\\nk", "li,&\\nk/y"]),
        ("file", ["file"]),
        ("-odd", ["-odd"]),
    ],
)
async def test_what_a_source_on_this_host_means(tmp_path, monkeypatch, source, names):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/y").touch()
    (tmp_path / "file").touch()
    (tmp_path / "-odd").touch()
    (tmp_path / "link").symlink_to("folder")
    (tmp_path / "li,&\\nk").symlink_to("folder")
    monkeypatch.chdir(tmp_path)
    async with tar_stream.packed(*copy_paths.source(source), keep_owner=False) as chunks:
        data = b"".join([chunk async for chunk in chunks])
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        assert [member.name for member in archive] == names


async def test_sources_that_are_none_are_told(tmp_path):
    with socket.socket(socket.AF_UNIX) as listener:
        os.chdir(tmp_path)
        listener.bind("socket")
        os.chdir("/")
    (tmp_path / "file").touch()
    with pytest.raises(NotFound, match="there is no"):
        copy_paths.source(f"{tmp_path}/none")
    with pytest.raises(InvalidRequest, match="is a socket"):
        copy_paths.source(f"{tmp_path}/socket")
    for path in (f"{tmp_path}/file/", f"{tmp_path}/file/."):
        with pytest.raises(InvalidRequest, match="not a directory"):
            copy_paths.source(path)
    with pytest.raises(StorageError, match="cannot be read"):
        async with tar_stream.packed(tmp_path, "none", "none", False) as chunks:
            [chunk async for chunk in chunks]


async def test_a_source_that_nobody_reads_to_its_end_ends_with_its_block(tmp_path):
    (tmp_path / "large").write_bytes(bytes(5 << 20))
    async with asyncio.timeout(20), tar_stream.packed(tmp_path, "large", "large", False) as chunks:
        await anext(chunks)


async def test_what_tar_complains_of_does_not_stop_it(tmp_path):
    for number in range(3000):  # each is told in a line: more than a pipe holds
        with socket.socket(socket.AF_UNIX) as listener:
            os.chdir(tmp_path)
            listener.bind(f"{number:04}{'s' * 60}")
            os.chdir("/")
    async with asyncio.timeout(60), tar_stream.packed(tmp_path, ".", ".", False) as chunks:
        assert [chunk async for chunk in chunks]
