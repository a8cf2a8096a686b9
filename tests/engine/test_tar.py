"""Archives that a guest has sent, which is not trusted."""

from __future__ import annotations

import asyncio
import os
import socket
import stat
import tarfile
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from tests.engine.archives import FIFO, FOLDER, HARD_LINK, SYMLINK, copy, packed
from vc_core.engine.api import copy_paths
from vc_core.engine.host import tar_reader, tar_stream
from vc_core.spec.errors import AgentError, InvalidRequest, StorageError

ROOT = pytest.mark.skipif(
    os.geteuid() != 0, reason="only root can make devices and give files away"
)


@pytest.fixture
def home(tmp_path) -> Path:
    """A folder with files of its owner's, to which something is copied."""
    home = tmp_path / "home"
    (home / ".ssh").mkdir(parents=True)
    (home / ".bashrc").write_text("mine")
    (home / ".ssh/authorized_keys").write_text("mine")
    (tmp_path / "outside").mkdir()
    return home


def state(folder: Path) -> dict[str, tuple[object, ...]]:
    """All that is below a folder, and the folder."""
    found: dict[str, tuple[object, ...]] = {}
    for path in (folder, *sorted(folder.rglob("*"))):
        one = path.lstat()
        text = path.read_bytes() if stat.S_ISREG(one.st_mode) else b""
        found[str(path)] = one.st_mode, one.st_uid, one.st_ino, text
    return found


EVIL = {"name": "evil", "data": b"x"}


@pytest.mark.parametrize(
    "members",
    [
        [{"name": ".bashrc", "data": b"evil"}],
        [{"name": "x", "data": b""}, {"name": ".bashrc", "data": b"evil"}],
        [{"name": "x", "type": FOLDER}, {"name": ".ssh/authorized_keys", "data": b"evil"}],
        [{"name": ".", "type": FOLDER, "mode": 0o777}],
        [{"name": ".ssh", "type": FOLDER, "mode": 0o777}],
        [{"name": "./.bashrc", "type": SYMLINK, "linkname": "/evil"}],
        [{"name": "../outside/evil", "data": b"x"}],
        [{"name": "x/../.bashrc", "data": b"x"}],
        [{"name": "x/../../outside/evil", "data": b"x"}],
        [{"name": "/tmp/vc-evil", "data": b"x"}],
        [{"name": "x", "type": HARD_LINK, "linkname": ".bashrc"}],
        [{"name": "x", "type": HARD_LINK, "linkname": "../outside/there"}],
        [
            {"name": "x", "type": FOLDER},
            {"name": "x/y", "type": HARD_LINK, "linkname": "x/../.bashrc"},
        ],
    ],
)
async def test_what_was_not_asked_for_is_not_written(home, members):
    (home.parent / "outside/there").write_text("there")
    before = state(home)
    with pytest.raises(AgentError, match="the guest has sent"):
        await copy(packed(*members), "/data/x", home / "x")
    after = {
        path: found for path, found in state(home).items() if not path.startswith(str(home / "x"))
    }
    assert after == before
    assert [path.name for path in (home.parent / "outside").iterdir()] == ["there"]
    assert not Path("/tmp/vc-evil").exists()


async def test_only_the_name_that_was_asked_for_is_replaced_in_a_folder(home):
    await copy(packed({"name": ".bashrc", "data": b"new"}), "/root/.bashrc", home)
    assert (home / ".bashrc").read_text() == "new"
    with pytest.raises(AgentError, match=r"\.profile, which is not below \.bashrc"):
        await copy(packed({"name": ".profile", "data": b"new"}), "/root/.bashrc", home)


@pytest.mark.parametrize(
    "members",
    [
        [
            {"name": "x", "type": FOLDER},
            {"name": "x/link", "type": SYMLINK, "linkname": "../../outside"},
        ],
        [{"name": "x", "type": FOLDER}],
    ],
    ids=["of this archive", "of an earlier one"],
)
@pytest.mark.parametrize(
    "through",
    [{"name": "x/link/evil", "data": b"x"}, {"name": "x/link", "type": FOLDER, "mode": 0o777}],
)
async def test_no_link_is_written_through(home, members, through):
    (home / "x").mkdir()
    (home / "x/link").symlink_to("../../outside")
    before = state(home.parent / "outside")
    with pytest.raises(InvalidRequest, match=r"is a link or not a directory|is not a directory"):
        await copy(packed(*members, through), "/x", home)
    assert state(home.parent / "outside") == before


async def test_a_link_that_a_guest_has_sent_before_is_no_target(home):
    await copy(packed({"name": "x", "type": SYMLINK, "linkname": "../outside"}), "/x", home)
    with pytest.raises(InvalidRequest, match=r"is a symbolic link, .*; write .*x/ to follow it"):
        await copy(packed(EVIL), "/evil", home / "x")
    await copy(packed(EVIL), "/evil", f"{home / 'x'}/")
    assert (home.parent / "outside/evil").read_text() == "x"


async def test_folders_that_are_there_keep_mode_owner_and_time(home):
    (home / "x/sub").mkdir(parents=True)
    os.utime(home / "x/sub", (1, 1))
    (home / "x").chmod(0o700)
    tree = [
        {"name": "x", "type": FOLDER, "mode": 0o777},
        {"name": "x/sub", "type": FOLDER, "mode": 0o777, "mtime": 9},
    ]
    await copy(packed(*tree), "/x", home)
    await copy(
        packed({"name": ".", "type": FOLDER, "mode": 0o777}, {"name": "./new", "data": b"x"}),
        "/x/.",
        home / "x",
    )
    assert stat.S_IMODE((home / "x").stat().st_mode) == 0o700
    assert ((home / "x/sub").stat().st_mode & 0o777, (home / "x/sub").stat().st_mtime) == (0o755, 1)
    assert (home / "x/new").read_text() == "x"


@pytest.mark.parametrize("kind", ["fifo", "socket", "link", "hard link", "device"])
async def test_what_is_in_the_way_of_a_file_is_replaced_and_not_opened(home, kind):
    place, victim = home / "x/file", home / ".bashrc"
    place.parent.mkdir()
    if kind == "device" and os.geteuid() != 0:
        pytest.skip("only root can make devices")
    with socket.socket(socket.AF_UNIX) as listener:
        if kind == "fifo":
            os.mkfifo(place)
        elif kind == "socket":
            os.chdir(place.parent)  # the path of a socket must be short
            listener.bind("file")
            os.chdir("/")
        elif kind == "link":
            place.symlink_to(victim)
        elif kind == "hard link":
            os.link(victim, place)
        else:
            os.mknod(place, 0o600 | stat.S_IFCHR, os.makedev(1, 3))
        async with asyncio.timeout(20):
            await copy(
                packed({"name": "x", "type": FOLDER}, {"name": "x/file", "data": b"new"}),
                "/x",
                home,
            )
    assert stat.S_ISREG(place.lstat().st_mode)
    assert (place.read_text(), victim.read_text()) == ("new", "mine")
    assert [path.name for path in place.parent.iterdir()] == ["file"]


async def test_folders_and_files_do_not_replace_each_other(home):
    (home / "x").mkdir()
    (home / "x/folder").mkdir()
    (home / "x/file").write_text("mine")
    for wrong in ({"name": "x/folder", "data": b"x"}, {"name": "x/file", "type": FOLDER}):
        with pytest.raises(InvalidRequest, match="in the container"):
            await copy(packed({"name": "x", "type": FOLDER}, wrong), "/x", home)
    assert (home / "x/file").read_text() == "mine"


async def test_a_copy_that_breaks_leaves_the_file_that_was_there(home):
    data = packed({"name": ".bashrc", "data": b"x" * 9000})[:5000]
    with pytest.raises(AgentError, match="it ends in the middle"):
        await copy(data, "/.bashrc", home)
    assert (home / ".bashrc").read_text() == "mine"
    assert {path.name for path in home.iterdir()} == {".ssh", ".bashrc"}


@ROOT
async def test_folders_that_somebody_swaps_for_links_meanwhile_lead_nowhere(home):
    """The folder belongs to somebody else, who acts between any two steps of ours: after each
    chunk.
    """
    outside = home.parent / "outside"
    outside.chmod(0o700)
    members = [{"name": "x", "type": FOLDER, "mode": 0o777}]
    members += [{"name": f"x/{number}", "data": b"x" * 600} for number in range(20)]
    before = state(outside)

    async def swapping():
        data = packed(*members)
        for at in range(0, len(data), 512):
            yield data[at : at + 512]
            if (home / "x").is_dir() and not (home / "x").is_symlink():
                (home / "x").rename(home / f"x-{at}")
                (home / "x").symlink_to(outside)

    with (
        copy_paths.opened("/x", str(home)) as destination,
        pytest.raises((InvalidRequest, StorageError)),
    ):
        await tar_stream.unpack(swapping(), destination, False)
    assert state(outside) == before


async def test_hard_links_lead_to_files_of_the_archive(home):
    tree = [{"name": "x", "type": FOLDER}, {"name": "x/a", "data": b"1"}]
    await copy(packed(*tree, {"name": "x/b", "type": HARD_LINK, "linkname": "x/a"}), "/x", home)
    await copy(
        packed(*tree, {"name": "x/b", "type": HARD_LINK, "linkname": "x/a"}), "/x", home / "x"
    )
    assert (home / "x/a").stat().st_ino == (home / "x/b").stat().st_ino
    (home / "x/mine").write_text("mine")
    with pytest.raises(AgentError, match="hard link to x/mine, which it has not sent"):
        await copy(
            packed(*tree, {"name": "x/b", "type": HARD_LINK, "linkname": "x/mine"}), "/x", home
        )


@ROOT
@pytest.mark.parametrize("keep_owner", [False, True])
async def test_set_uid_bits_and_devices_stay_behind_and_owners_unless_kept(
    home, keep_owner, caplog
):
    members = [
        {"name": "x", "type": FOLDER, "mode": 0o7755, "uid": 1234},
        {"name": "x/strong", "data": b"x", "mode": 0o6755, "uid": 1234},
        {"name": "x/device", "type": tarfile.CHRTYPE, "devmajor": 1, "devminor": 3},
        {"name": "x/fifo", "type": FIFO, "mode": 0o640},
    ]
    await copy(packed(*members), "/x", home, keep_owner)
    assert caplog.messages == ["1 devices were left out: they are not copied to the host"]
    found = (home / "x/strong").stat()
    assert (found.st_mode & 0o7777, found.st_uid) == (0o755, 1234 if keep_owner else os.geteuid())
    assert (home / "x").stat().st_mode & 0o7777 == 0o1755
    assert not (home / "x/device").exists()
    assert stat.S_IMODE((home / "x/fifo").stat().st_mode) == 0o640
    assert (home / "x/fifo").is_fifo()
    with pytest.raises(InvalidRequest, match="device is a device"):
        await copy(packed({**members[2], "name": "device"}), "/dev/device", home)


def header(**fields: Any) -> bytes:
    info = tarfile.TarInfo("x")
    for key, value in fields.items():
        setattr(info, key, value)
    return info.tobuf(tarfile.GNU_FORMAT)


def pax(*records: bytes) -> bytes:
    data = b"".join(records)
    return header(type=tarfile.XHDTYPE, size=len(data)) + data + bytes(-len(data) % 512)


def sparse(*pairs: tuple[int, int], size: int, whole: int, more: bytes = b"") -> bytes:
    block = bytearray(header(type=tarfile.GNUTYPE_SPARSE, size=size))
    for at, number in enumerate(number for pair in pairs for number in pair):
        block[386 + at * 12 : 398 + at * 12] = b"%011o\0" % number
    block[482] = bool(more)
    block[483:495] = b"%011o\0" % whole
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block) + more


GOOD = packed({"name": "x", "data": b"x"})
HOSTILE = {
    "a name of a gigabyte": header(type=tarfile.GNUTYPE_LONGNAME, size=1 << 30) + bytes(1 << 20),
    "a link of a gigabyte": header(type=tarfile.GNUTYPE_LONGLINK, size=1 << 30) + bytes(1 << 20),
    "a pax header of a gigabyte": header(type=tarfile.XHDTYPE, size=1 << 30) + bytes(1 << 20),
    "a chain of names": (header(type=tarfile.GNUTYPE_LONGNAME, size=2) + b"y".ljust(512, b"\0"))
    * 5000,
    "a chain of pax headers": pax(b"9 a=abcd\n") * 5000,
    "a negative size": header(size=-5),
    "an enormous size": header(size=1 << 80),
    "an enormous time": header(mtime=1 << 70),
    "a time in nanoseconds": header(mtime=1_700_000_000_000_000_000),
    "an enormous owner": header(uid=1 << 40),
    "an owner that means no change": header(uid=(1 << 32) - 1),
    "an unknown type": header(type=b"Z"),
    "a link to nothing": header(type=SYMLINK),
    "a NUL in a pax name": pax(b"11 path=a\0\n") + header(),
    "a pax number that is none": pax(b"12 mtime=x\n\n"[:12]) + header(),
    "pax lengths that lie": pax(b"99999 path=a\n") + header(),
    "holes in the pax format": pax(b"22 GNU.sparse.major=1\n") + header(),
    "holes without an end": sparse((0, 1), size=1, whole=9, more=(b"1".ljust(512, b"1")) * 20000),
    "overlapping holes": sparse((0, 4), (2, 4), size=8, whole=9) + bytes(512),
    "holes behind the end": sparse((5, 5), size=5, whole=6) + bytes(512),
    "nothing": b"",
    "only an end": bytes(1024),
    "no archive": b"no archive" * 1000,
    "half a header": GOOD[:300],
    "what goes on after the end": GOOD + bytes(3 << 20),
    "a damaged checksum": b"y" + GOOD[1:],
}


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE.keys())
async def test_what_is_wrong_with_an_archive_is_told_and_takes_no_memory(home, data):
    tracemalloc.start()
    try:
        with pytest.raises(AgentError, match="the guest") as told:
            await copy(data, "/x", home)
        assert tracemalloc.get_traced_memory()[1] < 32 << 20
    finally:
        tracemalloc.stop()
    assert str(told.value).isprintable()
    assert len(str(told.value)) < 1000


async def test_members_are_counted(home, monkeypatch):
    monkeypatch.setattr(tar_reader, "_MOST_MEMBERS", 3)
    with pytest.raises(AgentError, match="more than 3 files"):
        await copy(packed({"name": "x", "type": FOLDER}, *[{"name": "x/y"}] * 5), "/x", home)


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT, tarfile.PAX_FORMAT])
async def test_every_format_is_read(home, form):
    deep = "/".join(["x", "d" * 50, "e" * 50, "f" * 90])
    last = {"name": f"{deep}/l", "type": SYMLINK, "linkname": "t" * 90}
    await copy(
        packed({"name": "x", "type": FOLDER}, {"name": f"{deep}/y", "data": b"1"}, last, form=form),
        "/x",
        home,
    )
    assert (home / deep / "y").read_text() == "1"
    assert (home / deep / "l").readlink() == Path("t" * 90)


async def test_holes_times_before_1970_and_names_of_any_bytes_are_kept(home):
    name = os.fsdecode(b"x\xff\n")
    data = sparse((0, 3), (1 << 20, 3), size=6, whole=2 << 20) + b"onetwo".ljust(512, b"\0")
    await copy(data, "/x", home)
    content = (home / "x").read_bytes()
    assert (content[:3], content[1 << 20 : (1 << 20) + 4], len(content)) == (
        b"one",
        b"two\0",
        2 << 20,
    )
    assert (home / "x").stat().st_blocks < 1000
    await copy(
        packed({"name": "y", "type": FOLDER}, {"name": f"y/{name}", "data": b"1", "mtime": -5}),
        "/y",
        home,
    )
    assert (home / "y" / name).stat().st_mtime == -5


async def test_a_source_that_fails_is_what_is_told(home):
    async def failing():
        yield b"half"
        raise ZeroDivisionError

    with copy_paths.opened("/x", str(home)) as destination, pytest.raises(ZeroDivisionError):
        await tar_stream.unpack(failing(), destination, False)


async def test_a_copy_from_a_source_that_says_nothing_can_be_given_up(home):
    waits = asyncio.Event()

    async def silent():
        yield GOOD[:512]
        waits.set()
        await asyncio.Event().wait()

    with copy_paths.opened("/x", str(home)) as destination:
        work = asyncio.create_task(tar_stream.unpack(silent(), destination, False))
        await waits.wait()
        work.cancel()
        async with asyncio.timeout(20):
            with pytest.raises(asyncio.CancelledError):
                await work
    assert {path.name for path in home.iterdir()} == {".ssh", ".bashrc"}
