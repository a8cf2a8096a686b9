"""Folders and files that decide what we run are ours alone, or they are refused: one check, one
message.
"""

from __future__ import annotations

import asyncio
import os
import pwd
import re
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from vc_core.defaults import DataDefaults
from vc_core.driver_kit import opened_private_folder, private_folder, write_private_file
from vc_core.driver_kit.ownership import (
    trusted_owners,
    untrusted,
)
from vc_core.engine.host.container_disks import ContainerDisks
from vc_core.engine.host.volumes import Volumes
from vc_core.engine.state.event_journal import Journal
from vc_core.images.sources import of_reference
from vc_core.images.store import Images
from vc_core.spec import InvalidRequest

needs_root = pytest.mark.skipif(
    os.geteuid() != 0, reason="only root can make what belongs to others"
)


@pytest.fixture(params=[0, 0o022, 0o777], ids=oct)
def umask(request):
    before = os.umask(request.param)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_folder_and_a_file_are_closed_to_others_whatever_the_umask(tmp_path, umask):
    (tmp_path / "there").mkdir()
    (tmp_path / "there").chmod(0o755)
    made = private_folder(tmp_path / "a", "x.dir")
    write_private_file(made / "file", "text")
    write_private_file(made / "file", b"again")
    assert [mode(made), mode(made / "file"), mode(private_folder(tmp_path / "there", "x.dir"))] == [
        0o700,
        0o600,
        0o700,
    ]
    assert (made / "file").read_text() == "again"


def test_parents_that_are_missing_are_closed_to_others_too(tmp_path):
    private_folder(tmp_path / "a/b/c", "x.dir")
    assert {mode(tmp_path / "a"), mode(tmp_path / "a/b"), mode(tmp_path / "a/b/c")} == {0o700}


def make_stranger(path: Path, kind: str) -> None:
    """What somebody else may have put where we want a folder."""
    if kind == "link":
        (path.parent / "target").mkdir()
        path.symlink_to(path.parent / "target")
    elif kind == "file":
        path.touch()
    else:
        path.mkdir()
        path.chmod({"open": 0o777, "group": 0o770}.get(kind, 0o700))
        if kind == "theirs":
            os.chown(path, 65534, 65534)


STRANGERS = ["link", "file", "open", "group", pytest.param("theirs", marks=needs_root)]


@pytest.mark.parametrize("kind", STRANGERS)
def test_what_others_could_have_put_there_is_refused_with_the_setting(tmp_path, kind):
    place = tmp_path / "place"
    make_stranger(place, kind)
    before = place.lstat()
    with pytest.raises(InvalidRequest, match=r"place.*; .*set x\.dir to a directory that you own"):
        private_folder(place, "x.dir")
    with pytest.raises(InvalidRequest), opened_private_folder(place, "x.dir"):
        pass
    assert (place.lstat().st_mode, place.lstat().st_uid) == (before.st_mode, before.st_uid), (
        "nothing is changed"
    )


@pytest.mark.parametrize("kind", STRANGERS)
@pytest.mark.parametrize("store", ["image.dir", "volume.dir", "data.dir"])
def test_every_store_asks_the_same(tmp_path, store, kind):
    """The folders of templates, pools, snapshots and pods: see their own tests, too."""
    place = tmp_path / "place"
    make_stranger(place, kind)
    calls = {
        "image.dir": lambda: asyncio.run(
            Images(place, 1).take(of_reference("debian:12"), "debian:12")
        ),
        "volume.dir": lambda: Volumes(place).create("v"),
        "data.dir": lambda: ContainerDisks(DataDefaults(place)).make_log("p", "c"),
    }
    with pytest.raises(InvalidRequest, match=f"set {store} to a directory that you own"):
        calls[store]()


async def test_events_are_not_written_into_a_folder_of_others(tmp_path):
    make_stranger(tmp_path / "place", "open")
    journal = Journal(tmp_path / "place")
    with pytest.raises(InvalidRequest, match=r"set data\.dir"):
        [event async for event in journal.events()]
    assert list((tmp_path / "place").iterdir()) == []


def test_a_file_is_not_written_through_a_link(tmp_path):
    (tmp_path / "target").write_text("theirs")
    (tmp_path / "link").symlink_to(tmp_path / "target")
    with pytest.raises(OSError, match="symbolic link"):
        write_private_file(tmp_path / "link", "ours")
    assert (tmp_path / "target").read_text() == "theirs"


def test_a_file_of_this_user_in_a_folder_of_this_user_is_trusted(tmp_path):
    (tmp_path / "file").touch()
    assert untrusted(tmp_path / "file", trusted_owners()) == ""
    (tmp_path / "file").chmod(0o664)
    if os.getegid() in {0, os.geteuid()}:
        assert untrusted(tmp_path / "file", trusted_owners()) == "", (
            "a group that is the user's own"
        )


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda path: path.chmod(0o646), "file can be written by other users"),
        (lambda path: path.parent.chmod(0o777), "home can be written by other users"),
        pytest.param(
            lambda path: os.chown(path, 65534, -1),
            r"file belongs to .*\(uid 65534\)",
            marks=needs_root,
        ),
        pytest.param(
            lambda path: os.chown(path.parent, 65534, -1), "home belongs to", marks=needs_root
        ),
        pytest.param(
            lambda path: os.chown(path, -1, 65534) or path.chmod(0o660),
            "can be written",
            marks=needs_root,
        ),
    ],
)
def test_what_others_could_have_written_is_not_trusted_nor_is_a_link_to_it(
    tmp_path, change, reason
):
    file = tmp_path / "home/file"
    file.parent.mkdir()
    file.touch()
    (tmp_path / "link").symlink_to(file)
    assert untrusted(tmp_path / "link", trusted_owners()) == ""
    change(file)
    for path in (file, tmp_path / "link"):
        assert re.search(reason, untrusted(path, trusted_owners()))


@needs_root
def test_under_sudo_the_user_who_typed_it_is_trusted(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    os.chown(tmp_path / "file", 12345, 12345)
    monkeypatch.delenv("SUDO_UID", raising=False)
    assert untrusted(tmp_path / "file", trusted_owners())
    monkeypatch.setenv("SUDO_UID", "12345")
    assert not untrusted(tmp_path / "file", trusted_owners())


_TELLING = """
import ctypes, os, pathlib, pwd, sys
sys.path[:] = eval(sys.argv[1])
from vc_core.driver_kit.ownership import home_folder, is_system_root, user_number
uid, is_mapped = int(sys.argv[2]), sys.argv[3] == "True"
os.setresuid(uid, uid, uid)
if is_mapped:
    libc = ctypes.CDLL(None)
    libc.prctl(4, 1, 0, 0, 0)  # PR_SET_DUMPABLE: its files in /proc are its own again
    assert libc.unshare(0x10000000) == 0  # CLONE_NEWUSER
    pathlib.Path("/proc/self/uid_map").write_text(f"0 {uid} 1")
print(os.geteuid(), is_system_root(), user_number(), home_folder())
"""


def _told_by(uid: int, is_mapped: bool) -> str:
    """Returns what a process says that is another user, with a user namespace or without one.

    It is a new one: a namespace is for a process with one thread.
    """
    words = [sys.executable, "-I", "-c", _TELLING, repr(sys.path), str(uid), str(is_mapped)]
    done = subprocess.run(words, env={}, capture_output=True, text=True, check=False)
    return done.stdout.strip() or done.stderr


@needs_root
def test_root_of_a_users_namespace_is_that_user():
    """As podman without root runs its runtime: as uid 0, and in later commands without HOME."""
    nobody = pwd.getpwnam("nobody")
    theirs = f"False {nobody.pw_uid} {nobody.pw_dir}"
    assert _told_by(nobody.pw_uid, is_mapped=True) == f"0 {theirs}"
    assert _told_by(nobody.pw_uid, is_mapped=False) == f"{nobody.pw_uid} {theirs}"
    assert _told_by(0, is_mapped=False) == f"0 True 0 {pwd.getpwuid(0).pw_dir}"
