"""`vc cp` meets hostile archives and refusals: nothing beside the target is touched, and it ends in
one line.
"""

from __future__ import annotations

import grpc
import pytest

from tests.hostile.agent import Answer
from tests.hostile.answers import refuses, writes, writes_on
from tests.hostile.archives import ARCHIVES
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
