"""Programs of the host are found where the user's PATH says, but for the current folder and what
others can change.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from vc_core.driver_kit import find_program, program_environment, programs


@pytest.fixture
def folder(tmp_path) -> Path:
    """Holds a program named "thing"."""
    made = tmp_path / "bin"
    made.mkdir(mode=0o755)
    (made / "thing").write_text("#!/bin/sh\n")
    (made / "thing").chmod(0o755)
    return made


@pytest.mark.parametrize("entry", ["", ".", "bin", "./bin", "../{name}/bin"])
def test_what_depends_on_the_current_folder_is_left_out(folder, monkeypatch, entry):
    monkeypatch.chdir(folder if entry in {"", "."} else folder.parent)
    monkeypatch.setenv("PATH", f"{entry.format(name=folder.parent.name)}:/usr/bin")
    assert find_program("thing") is None
    assert find_program("./thing") is None
    assert find_program("bin/thing") is None
    monkeypatch.setenv("PATH", f"{entry}:{folder}")
    assert find_program("thing") == str(folder / "thing")


def test_an_absolute_path_is_used_as_given(folder, monkeypatch):
    assert find_program(str(folder / "thing")) == str(folder / "thing")
    assert find_program(str(folder / "other")) is None
    (folder / "thing").chmod(0o644)
    assert find_program(str(folder / "thing")) is None


def test_system_folders_are_searched_also_when_path_lacks_them(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    assert find_program("ldconfig") == "/usr/sbin/ldconfig"


def test_what_a_program_starts_by_itself_is_found_in_the_same_folders(folder, monkeypatch):
    monkeypatch.setenv("PATH", f":.:{folder}:relative")
    assert program_environment()["PATH"].split(":")[0] == str(folder)
    assert all(entry.startswith("/") for entry in program_environment()["PATH"].split(":"))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root is held to what nobody else can change")
@pytest.mark.parametrize(
    "change", ["folder open", "folder theirs", "program open", "program theirs", "a link"]
)
def test_root_runs_no_program_that_others_can_change(folder, monkeypatch, change):
    monkeypatch.setenv("PATH", str(folder))
    assert find_program("thing") == str(folder / "thing")
    subject = folder if "folder" in change else folder / "thing"
    if "open" in change:
        subject.chmod(0o777)
    elif "theirs" in change:
        os.chown(subject, 65534, 65534)
    else:
        theirs = folder.parent / "theirs"
        theirs.mkdir()
        (folder / "thing").rename(theirs / "thing")
        os.chown(theirs, 65534, 65534)
        (folder / "thing").symlink_to(theirs / "thing")
    assert find_program("thing") is None
    monkeypatch.setattr(programs, "is_host_root", lambda: False)
    assert find_program("thing") == str(folder / "thing"), (
        "an ordinary user's PATH is the user's own"
    )


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_a_folder_that_may_not_be_entered_is_left_out(folder):
    """As another user with root's PATH, which su and setpriv leave."""
    folder.parent.chmod(0o700)
    code = (
        "from vc_core.driver_kit import find_program, program_environment\n"
        "print(find_program('sh'), program_environment()['PATH'])"
    )
    words = ["setpriv", "--reuid", "65534", "--clear-groups", sys.executable, "-P", "-c", code]
    environ = {**os.environ, "PATH": f"{folder}/deep:{folder}:/usr/bin"}
    done = subprocess.run(words, capture_output=True, text=True, check=False, cwd="/", env=environ)
    assert done.stdout.startswith("/usr/bin/sh /usr/bin:"), done.stderr
