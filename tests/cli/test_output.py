"""What `vc` prints: one line for an error, JSON for programs, a chain for --debug, no colours in a
pipe.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

import pytest
from click.testing import CliRunner

from tests.cli.specs import spec_of
from vc_core.cli import _ELSEWHERE
from vc_core.cli import vc as main
from vc_core.cli.container_table import state_text
from vc_core.cli.exit_codes import Exit, OutputClosed, report_error
from vc_core.cli.render import ago, plain, size
from vc_core.engine.api.container_status import ContainerStatus
from vc_core.engine.state.states import State
from vc_core.spec import (
    CannotExecute,
    ConfigError,
    ExitStatus,
    HypervisorError,
)


def vc(*words: str, config: str = "", tmp_path=None) -> subprocess.CompletedProcess[str]:
    environ = dict(os.environ)
    if tmp_path is not None:
        text = (
            f"[storage.fs]\nrun_root = '{tmp_path}/run'\nconfig_root = '{tmp_path}/config'\n"
            f"{config}"
        )
        (tmp_path / "vc.toml").write_text(text)
        environ["VC_CONFIG"] = str(tmp_path / "vc.toml")
    return subprocess.run(
        [sys.executable, "-P", "-W", "error", "-m", "vc_core", *words],
        capture_output=True,
        text=True,
        check=False,
        env=environ,
    )


def test_help_names_every_command():
    told_help = vc("--help").stdout
    for name in ("run", "exec", "ps", "pod", "container", "guest", "config", "plugins", "doctor"):
        assert f"\n  {name} " in told_help


@pytest.mark.parametrize(("elsewhere", "here"), _ELSEWHERE.items())
def test_what_users_of_docker_type_is_answered_with_what_does_it_here(elsewhere, here):
    """And that is a command of ours; where both have the same name, ours is meant."""
    runner = CliRunner()
    answered = runner.invoke(main, [elsewhere, "p"])
    assert f"No such command '{elsewhere}'; use 'vc {here}'." in answered.stderr
    assert answered.exit_code != 0
    assert runner.invoke(main, [*here.split(), "--help"]).exit_code == 0
    asked = {"_VC_COMPLETE": "bash_complete", "COMP_WORDS": f"vc {elsewhere} p", "COMP_CWORD": "2"}
    assert runner.invoke(main, prog_name="vc", env=asked).exception is None, (
        "nobody has typed it yet"
    )


def test_ps_takes_all_for_an_answer(tmp_path):
    assert vc("ps", "-a", tmp_path=tmp_path).stdout == vc("ps", tmp_path=tmp_path).stdout != ""


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (
            ["pod", "start", "nobody"],
            "vc: error: no pod nobody; 'vc pod ls' shows those that exist",
        ),
        (["pod", "status", "../x"], "vc: error: '../x' is no pod id"),
        (
            ["container", "kill", "nobody", "--signal", "BANG"],
            "vc: error: there is no signal 'BANG'",
        ),
        (
            ["--config", "/no/such.toml", "pod", "ls"],
            "vc: error: --config names /no/such.toml, which is not a file",
        ),
    ],
)
def test_an_error_is_one_line_and_125(words, line, tmp_path):
    done = vc(*words, tmp_path=tmp_path)
    assert done.returncode == 125
    assert done.stderr.startswith(line)
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    "words",
    [("run", "--foo", "busybox"), ("exec", "--foo", "p", "ls"), ("run", "-P", "x")],
)
def test_an_option_that_we_do_not_have_is_neither_an_image_nor_a_pod(words, tmp_path):
    done = vc(*words, tmp_path=tmp_path)
    assert done.returncode == 125
    assert f"No such option '{words[1]}'" in done.stderr


def test_every_problem_of_a_configuration_is_a_line(tmp_path):
    done = vc("pod", "ls", config="[pod]\nvcpu = 1\nmemory = 2\n", tmp_path=tmp_path)
    assert done.returncode == 125
    assert [line.split(": ")[3] for line in done.stderr.splitlines()] == ["pod.vcpu", "pod.memory"]


def test_debug_shows_the_chain(tmp_path):
    done = vc("--debug", "pod", "start", "nobody", tmp_path=tmp_path)
    assert "Traceback" in done.stderr
    assert done.stderr.splitlines()[-1].startswith("vc: error: no pod nobody")


def test_a_pod_that_never_ran_is_listed_and_deleted(tmp_path):
    assert vc("pod", "create", "p", "--annotation", "a=b", tmp_path=tmp_path).stdout == "p\n"
    table = vc("pod", "ls", tmp_path=tmp_path)
    assert table.stdout.splitlines()[0].split() == [
        "POD",
        "STATE",
        "CONTAINERS",
        "VCPUS",
        "MEMORY",
        "CREATED",
        "REASON",
    ]
    assert "\x1b" not in table.stdout
    (found,) = json.loads(vc("pod", "ls", "--json", tmp_path=tmp_path).stdout)
    assert (found["id"], found["state"], found["config"]["annotations"]) == (
        "p",
        "ready",
        {"a": "b"},
    )
    vc("pod", "delete", "p", tmp_path=tmp_path)
    assert json.loads(vc("pod", "ls", "--json", tmp_path=tmp_path).stdout) == []


def test_plugins_are_told_as_json():
    found = json.loads(vc("plugins", "--json").stdout)
    (fs,) = [one for one in found if one["name"] == "fs"]
    assert {"family": "storage", "state": "loads"}.items() <= fs.items()


def test_errors_become_exit_codes(capsys):
    assert report_error(CannotExecute("x", is_missing=True), is_debugging=False) is Exit.NOT_FOUND
    assert (
        report_error(CannotExecute("x", is_missing=False), is_debugging=False)
        is Exit.CANNOT_EXECUTE
    )
    assert (
        report_error(HypervisorError("broken", "vm_start", "acme", "p"), is_debugging=False)
        is Exit.FAILURE
    )
    assert report_error(ConfigError(["one", "two"]), is_debugging=False) is Exit.FAILURE
    lines = capsys.readouterr().err.splitlines()
    assert lines[2:] == [
        "vc: error: pod p: broken (acme, vm_start)",
        "vc: error: one",
        "vc: error: two",
    ]
    assert report_error(OutputClosed(), is_debugging=False) is Exit.BROKEN_PIPE
    assert report_error(RuntimeError("oops"), is_debugging=False) is Exit.FAILURE
    assert "a bug in vc" in capsys.readouterr().err


def test_numbers_for_people():
    assert [size(count) for count in (5, 2048, 5 << 20, 3 << 30)] == [
        "5 B",
        "2 KiB",
        "5 MiB",
        "3.0 GiB",
    ]
    assert ago(0).endswith("d ago")
    assert [plain(value) for value in (True, 'a"b', ("x", 1), {"k": 2})] == [
        "true",
        '"a\\"b"',
        '["x", 1]',
        "{k = 2}",
    ]


def test_the_state_of_a_container_tells_its_end_and_since_when():
    now = time.time_ns()

    def shown(state, status=None, started_ns=now - 120_000_000_000):
        return state_text(ContainerStatus("c", state, status, spec_of(), started_ns=started_ns))

    assert shown(State.RUNNING) == "running for 2 min"
    assert shown(State.READY, started_ns=0) == "ready"
    assert shown(State.STOPPED) == "stopped"
    assert shown(State.STOPPED, ExitStatus(code=3)) == "exited (3)"
    assert (
        shown(State.STOPPED, ExitStatus(code=3, signal=0, ended_ns=now - 60_000_000_000))
        == "exited (3) 1 min ago"
    )
    assert (
        shown(State.STOPPED, ExitStatus(code=3, signal=0, ended_ns=1)) == "exited (3) 2 min ago"
    ), "not before its start"
    assert (
        shown(State.STOPPED, ExitStatus(code=3, signal=0, ended_ns=now * 2)) == "exited (3) 0 s ago"
    ), "not in the future"


@pytest.mark.parametrize("words", [("run",), ("container", "create"), ("exec",)])
def test_long_help_is_in_groups(words):
    told_help = vc(*words, "--help").stdout
    places = [
        told_help.index(f"\n{group}:\n")
        for group in (
            "Container",
            "Process",
            *(() if words == ("exec",) else ("Limits", "Storage")),
            "Security",
        )
    ]
    assert places == sorted(places)
    rest = told_help.partition("\nOther options:\n")[2].split()
    assert [word for word in rest if word.startswith("--")] == (
        ["--json", "--help"] if "create" in words else ["--help"]
    )
