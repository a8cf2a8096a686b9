"""The command line, as runc's callers type it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from vc_runtime import command, options
from vc_runtime.errors import RuntimeFailure

CONTAINERD = ("--root", "/r", "--log", "/l", "--log-format", "json", "--systemd-cgroup")


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (
            ("create", "--bundle", "/b", "--pid-file", "/b/pid", "--console-socket", "/s", "c"),
            {"verb": "create", "bundle": Path("/b"), "pid_file": Path("/b/pid"), "id": "c"},
        ),
        (
            ("create", "--no-pivot", "--no-new-keyring", "--preserve-fds=0", "c"),
            {"preserve_fds": 0},
        ),
        (("kill", "--all", "c", "9"), {"all": True, "id": "c", "signal": "9"}),
        (("kill", "c"), {"signal": "TERM"}),
        (("delete", "--force", "c"), {"force": True}),
        (
            ("exec", "--process", "/p", "--detach", "--pid-file", "/pid", "c"),
            {"process": Path("/p"), "detach": True, "command": []},
        ),
        (("exec", "c", "ls", "-l"), {"id": "c", "command": ["ls", "-l"]}),
        (("update", "--resources=-", "c"), {"resources": "-"}),
        (("ps", "--format", "json", "c"), {"format": "json", "id": "c"}),
        (("features",), {"verb": "features"}),
    ],
)
def test_the_words_of_callers_are_known(words, wanted):
    found = options.parse((*CONTAINERD, *words))
    assert {name: getattr(found, name) for name in wanted} == wanted
    assert (found.root, found.systemd_cgroup) == (Path("/r"), True)


def test_a_wrong_command_line_is_a_failure():
    for words in ((), ("fly", "c"), ("create",), ("create", "--bundel", "/b", "c")):
        with pytest.raises(RuntimeFailure):
            options.parse(words)


def test_descriptors_are_not_passed_into_a_machine():
    for verb in ("create", "exec"):
        options.parse((verb, "--preserve-fds", "0", "c"))
        with pytest.raises(RuntimeFailure, match="cannot be passed into a machine"):
            options.parse((verb, "--preserve-fds", "2", "c"))


def test_a_failure_is_told_and_logged(tmp_path, capsys):
    log = tmp_path / "log.json"
    words = ("--root", str(tmp_path), "--log", str(log), "--log-format", "json", "state", "c")
    assert command.run(words) == 1
    assert capsys.readouterr().err == "container 'c' does not exist\n"
    (line,) = log.read_text().splitlines()
    told = json.loads(line)
    assert (told["level"], told["msg"]) == ("error", "container 'c' does not exist")


def test_deleting_by_force_may_be_repeated(tmp_path, capsys):
    words = ("--root", str(tmp_path), "delete")
    assert command.run((*words, "c")) == 1
    assert "does not exist" in capsys.readouterr().err
    assert command.run((*words, "--force", "c")) == 0
