"""`vc cp` meets hostile archives and refusals: nothing beside the target is touched, and it ends in
one line.
"""

from __future__ import annotations

import os
from pathlib import Path

import grpc
import pytest

from tests.hostile.agent import Answer
from tests.hostile.answers import refuses, writes, writes_on
from tests.hostile.archives import ARCHIVES, archive, member
from tests.hostile.conftest import HostileHost


@pytest.fixture
def box(hostile):
    """A host whose pod box runs."""
    hostile.run()
    return hostile


def copy(host: HostileHost, *words: str) -> int:
    """Copies, and checks what holds whatever the guest does."""
    kept = host.folder / "kept"
    before = {
        path: (path.lstat(), path.is_file() and path.read_bytes())
        for path in (kept, kept / ".bashrc")
    }
    done = host.vc("cp", *words)
    assert done.problems() == []
    assert {one.name for one in kept.iterdir()} - {"hosts"} == {".bashrc", "into"}
    for path, (about, content) in before.items():
        now = path.lstat()
        assert (now.st_mode, now.st_uid, now.st_gid) == (about.st_mode, about.st_uid, about.st_gid)
        assert (path.is_file() and path.read_bytes()) == content
    assert not list((kept / "into").iterdir())
    return done.code


def test_archives_that_hold_something_else_than_what_was_asked_for(box):
    """Into a folder that has other files."""
    kept = box.folder / "kept"
    codes = {}
    for name, answer in ARCHIVES.items():
        box.agent.wrong = {"ReadOutput": answer}
        codes[name] = {copy(box, "box:/etc/hosts", str(kept))}
        (kept / "hosts").unlink(missing_ok=True)
    assert {name for name, found in codes.items() if found == {0}} <= {"a-fifo"}


_REFUSALS: dict[str, dict[str, Answer]] = {
    "no-such-file": {
        "ReadOutput": writes(stderr=b"\x1b[2Jno such file\nmore"),
        "Wait": lambda *_: b"\x08\x02",
    },
    "an-endless-complaint": {"ReadOutput": writes_on(b"", b"")},
    "refused": {"Files": refuses(grpc.StatusCode.INTERNAL)},
    "input-refused": {
        "WriteInput": refuses(grpc.StatusCode.INTERNAL),
        "Wait": lambda *_: b"\x08\x01",
    },
}


@pytest.mark.parametrize("answers", _REFUSALS.values(), ids=_REFUSALS)
def test_a_guest_that_refuses_a_copy(box, answers):
    kept = box.folder / "kept"
    box.agent.wrong = answers
    assert copy(box, "box:/etc/hosts", str(kept)) == 125
    assert copy(box, str(kept / ".bashrc"), "box:/tmp/") == 125
    assert not (kept / "hosts").exists()


def listing(folder: Path) -> dict[str, tuple[object, ...]]:
    """What lies in a folder: names, modes, inodes, targets of links, contents."""
    entries: dict[str, tuple[object, ...]] = {}
    for path in sorted(folder.rglob("*")):
        about = path.lstat()
        target = path.readlink() if path.is_symlink() else None
        content = path.read_bytes() if path.is_file() and target is None else b""
        entries[str(path)] = (about.st_mode, about.st_uid, about.st_ino, target, content)
    return entries


@pytest.fixture
def home(box: HostileHost) -> Path:
    """A folder with a file, a hard link to it, a link to it, and a link to a folder."""
    home = box.folder / "home"
    (home / "folder").mkdir(parents=True)
    (home / "there").write_text("mine")
    (home / "there").chmod(0o640)
    os.link(home / "there", home / "twin")
    (home / "link").symlink_to("there")
    (home / "link-to-folder").symlink_to("folder")
    return home


@pytest.mark.parametrize("name", ["new", "there", "link"])
def test_archives_that_are_copied_to_a_name(box, home, name):
    """As a file of another name, over a file that is there, and over a link, which is replaced.

    Only what has that name may change; what was sent before an error stays.
    """
    target = home / name
    codes = {}
    for sent, answer in ARCHIVES.items():
        box.agent.wrong = {"ReadOutput": answer}
        before = listing(home)
        done = box.vc("cp", "box:/etc/hosts", str(target))
        assert done.problems() == [], sent
        after = listing(home)
        before.pop(str(target), None)
        after.pop(str(target), None)
        assert before == after, sent
        codes[sent] = done.code
        target.unlink(missing_ok=True)
        if name == "there":
            target.write_text("mine")
        elif name == "link":
            target.symlink_to("there")
    assert {sent for sent, code in codes.items() if code == 0} <= {"a-fifo"}


def test_a_file_replaces_a_file_or_a_link_and_nothing_else(box, home):
    """The file of another name has no set-uid bit; what was linked to stays as it was."""
    good = writes(archive(member("hosts"), content=b"theirs"))
    box.agent.wrong = {"ReadOutput": good}
    twin = (home / "twin").stat()
    for name in ("new", "there", "link"):
        done = box.vc("cp", "box:/etc/hosts", str(home / name))
        assert (done.code, done.problems()) == (0, [])
        assert (home / name).read_bytes() == b"theirs"
        assert not (home / name).is_symlink()
        assert (home / name).stat().st_mode & 0o7000 == 0
        assert ((home / "twin").read_text(), (home / "twin").stat().st_ino) == ("mine", twin.st_ino)
        assert (home / "twin").stat().st_mode == twin.st_mode
    refused = box.vc("cp", "box:/etc/hosts", str(home / "link-to-folder"))
    assert (refused.code, refused.problems()) == (125, [])
    assert not list((home / "folder").iterdir())
    into_folder = box.vc("cp", "box:/etc/hosts", f"{home}/there/")
    assert (into_folder.code, into_folder.problems()) == (125, [])


@pytest.mark.parametrize("target", ["box:/tmp/new", "box:/etc/hosts", "box:/tmp/"])
@pytest.mark.parametrize("answers", _REFUSALS.values(), ids=_REFUSALS)
def test_what_is_copied_to_a_guest_stays_as_it_is(box, home, answers, target):
    """To another name, over a file that the guest says is there, and into a folder."""
    box.agent.wrong = answers
    before = listing(home)
    for source in ("there", "link", "folder", "link-to-folder/."):
        done = box.vc("cp", f"{home}/{source}", target)
        assert (done.code, done.problems()) == (125, [])
    assert listing(home) == before
