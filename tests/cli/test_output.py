"""What `vc` prints: one line for an error, JSON for programs, a chain for --debug, no colours in a pipe."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from vc_core.cli import _ELSEWHERE
from vc_core.cli import vc as main
from vc_core.cli.container_options import container_options, container_spec, hostname_is_h
from vc_core.cli.containers import state_text
from vc_core.cli.exit_codes import Exit, OutputClosed, told
from vc_core.cli.mounts import bind
from vc_core.cli.process_options import command_argument, stop_at_first_argument
from vc_core.cli.render import ago, plain, size
from vc_core.engine.api.container_status import ContainerStatus
from vc_core.engine.host.volumes import Volumes
from vc_core.engine.state.states import State
from vc_core.signals import signal_name, signal_number
from vc_core.spec import (
    CannotExecute,
    ConfigError,
    ExitStatus,
    HypervisorError,
    InvalidRequest,
    Resources,
    Rlimit,
    Rootfs,
    RootfsMode,
    Stdio,
)


def vc(*words: str, config: str = "", tmp_path=None) -> subprocess.CompletedProcess[str]:
    environ = dict(os.environ)
    if tmp_path is not None:
        text = f"[storage.fs]\nrun_root = '{tmp_path}/run'\nconfig_root = '{tmp_path}/config'\n{config}"
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
    assert f"No such command '{elsewhere}'; here it is 'vc {here}'." in answered.stderr
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
    [("run", "--foo", "busybox"), ("exec", "--foo", "p", "ls"), ("run", "-p", "80:80", "x")],
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
    assert told(CannotExecute("x", is_missing=True), is_debugging=False) is Exit.NOT_FOUND
    assert told(CannotExecute("x", is_missing=False), is_debugging=False) is Exit.CANNOT_EXECUTE
    assert (
        told(HypervisorError("broken", "vm_start", "acme", "p"), is_debugging=False) is Exit.FAILURE
    )
    assert told(ConfigError(["one", "two"]), is_debugging=False) is Exit.FAILURE
    lines = capsys.readouterr().err.splitlines()
    assert lines[2:] == [
        "vc: error: pod p: broken (acme, vm_start)",
        "vc: error: one",
        "vc: error: two",
    ]
    assert told(OutputClosed(), is_debugging=False) is Exit.BROKEN_PIPE
    assert told(RuntimeError("oops"), is_debugging=False) is Exit.FAILURE
    assert "a defect of ours" in capsys.readouterr().err


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
    assert shown(State.STOPPED, ExitStatus(3)) == "exited (3)"
    assert shown(State.STOPPED, ExitStatus(3, 0, now - 60_000_000_000)) == "exited (3) 1 min ago"
    assert shown(State.STOPPED, ExitStatus(3, 0, 1)) == "exited (3) 2 min ago", (
        "not before its start"
    )
    assert shown(State.STOPPED, ExitStatus(3, 0, now * 2)) == "exited (3) 0 s ago", (
        "not in the future"
    )


@click.command(context_settings={**stop_at_first_argument, **hostname_is_h})
@container_options
@command_argument
def made(command, **options):
    """Gives the specification that its options make."""
    return container_spec("c", command, options, Stdio.NULL, Volumes(Path("/nowhere")))


def spec_of(*words):
    return made.main([*words, "--", "sh"], standalone_mode=False)


def test_options_make_a_specification(monkeypatch):
    monkeypatch.setenv("PASSED", "on")
    process = spec_of(
        "-e", "A=b=c", "-e", "PASSED", "-e", "ABSENT", "-w", "/w", "-u", "nina", "--group", "7"
    ).process
    assert process.args == ("sh",)
    assert process.env[1:] == ("A=b=c", "PASSED=on")
    assert (process.cwd, process.user, process.groups, process.no_new_privileges) == (
        "/w",
        "nina",
        ("7",),
        None,
    )
    assert spec_of("--new-privileges").process.no_new_privileges is False
    spec = spec_of(
        "--rootfs", "/x:ro", "-v", "/a:/b:ro", "-v", "/c:/d", "--tmpfs", "/t:2m", "--shm-size", "1g"
    )
    assert spec.rootfs == Rootfs(Path("/x"), RootfsMode.READ_ONLY)
    assert [(str(one.source), one.destination, one.read_only) for one in spec.mounts] == [
        ("/a", "/b", True),
        ("/c", "/d", False),
        ("tmpfs", "/t", False),
    ]
    assert "size=2097152" in spec.mounts[2].options
    assert spec.shm_bytes == 1 << 30
    assert spec_of("--read-only").rootfs.mode is RootfsMode.READ_ONLY


def test_options_make_limits_and_devices():
    spec = spec_of(
        "--cpus", "1.5", "--memory", "64m", "--pids", "9", "--cpu-shares", "512", "--cpuset", "0-1"
    )
    assert spec.resources == Resources(150_000, 100_000, 512, "0-1", 64 << 20, 9)
    told = [
        "/dev/loop0",
        "/dev/loop1:/dev/x:ro",
        "0000:01:00.0",
        "vhost-user-net=/run/n.sock",
        "/img:/dev/y:rwm",
    ]
    devices = spec_of(*(word for text in told for word in ("--device", text))).devices
    assert [(str(one.path), one.destination, one.read_only, one.kind) for one in devices] == [
        ("/dev/loop0", "/dev/loop0", False, ""),
        ("/dev/loop1", "/dev/x", True, ""),
        ("/sys/bus/pci/devices/0000:01:00.0", "", False, ""),
        ("/run/n.sock", "", False, "vhost-user-net"),
        ("/img", "/dev/y", False, ""),
    ]


def test_mounts_are_written_as_in_docker():
    def of(*words):
        (mount,) = spec_of(*words).mounts
        return mount

    options = of("-v", "/a:/b:ro,z,noexec,rslave")
    assert (options.read_only, options.options, options.recursive) == (
        True,
        ("noexec", "rslave"),
        True,
    )
    assert of("-v", "/a:/b:Z").copy_up is False
    keys = of("--mount", "type=bind,source=/a,target=/b,readonly,bind-propagation=rslave")
    assert (keys.source, keys.destination, keys.read_only, keys.options) == (
        Path("/a"),
        "/b",
        True,
        ("rslave",),
    )
    for words in (
        ("--tmpfs", "/x:ro,size=64m,mode=1711,exec,suid,uid=7"),
        ("--tmpfs", "/x:64m,ro,uid=7,mode=1711,suid,exec"),
    ):
        mount = of(*words)
        assert (mount.destination, mount.read_only) == ("/x", True)
        assert set(mount.options) == {
            "nodev",
            "exec",
            "suid",
            "size=67108864",
            "mode=1711",
            "uid=7",
        }
    assert of("--tmpfs", "/x").options == ("nosuid", "nodev", "mode=1777")
    assert "size=67108864" in of("--mount", "type=tmpfs,target=/x,tmpfs-size=64m").options


def test_a_named_volume_gets_what_the_image_has_unless_it_must_not(tmp_path):
    def copies(text):
        return bind(text, Volumes(tmp_path / "volumes")).copy_up

    assert copies("new:/data")
    assert copies("type=volume,source=new,target=/data")
    assert not copies("new:/data:nocopy")
    assert not copies("new:/data:ro")
    assert not copies("type=volume,source=new,target=/data,volume-nocopy")
    assert not copies(f"{tmp_path}:/data")


def test_variables_come_from_files_before_options(tmp_path, monkeypatch):
    monkeypatch.setenv("PASSED", "on")
    (tmp_path / "env").write_text("# a comment\nA=1\n\nB=two words # no comment\nPASSED\n  C=3\n")
    env = spec_of("--env-file", str(tmp_path / "env"), "-e", "A=2").process.env
    assert env[1:] == ("A=2", "B=two words # no comment", "PASSED=on", "C=3")
    (tmp_path / "env").write_bytes(b"\xff=1")
    with pytest.raises(InvalidRequest, match="env cannot be read"):
        spec_of("--env-file", str(tmp_path / "env"))


def test_security_options_that_are_true_here_are_taken():
    assert spec_of("--security-opt", "no-new-privileges").process.no_new_privileges is True
    assert spec_of("--security-opt", "no-new-privileges:false").process.no_new_privileges is False
    assert spec_of("--security-opt", "seccomp=unconfined").confinement.seccomp == ""
    assert spec_of("--security-opt", "systempaths=unconfined").confinement.masked_paths == ()
    plain = spec_of("--security-opt", "apparmor=unconfined", "--security-opt", "label=disable")
    assert plain.confinement == spec_of().confinement


def test_names_and_signals_of_a_container():
    spec = spec_of("-h", "web", "--stop-signal", "QUIT", "-m", "64m", "--group-add", "7")
    assert (spec.hostname, spec.stop_signal, spec.resources.memory_bytes) == ("web", 3, 64 << 20)
    assert spec.process.groups == ("7",)


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


def test_options_make_capabilities():
    assert spec_of().process.capabilities is None
    assert "CAP_CHOWN" not in spec_of("--cap-drop", "chown").process.capabilities.effective
    assert spec_of(
        "--cap-drop", "ALL", "--cap-add", "cap_net_admin"
    ).process.capabilities.bounding == ("CAP_NET_ADMIN",)
    assert "CAP_SYS_ADMIN" in spec_of("--cap-add", "ALL").process.capabilities.permitted


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["-e", "=x"], "has no variable name"),
        (["-e", "a b=x"], "has no variable name"),
        (["-w", "here"], "must be an absolute path"),
        (["-v", "/a"], "is not SRC:DST"),
        (["-v", "/a:/b:ro:rw"], "is not SRC:DST"),
        (["-v", "/a:/b:ro,rw"], "contradict each other"),
        (["-v", "/a:/b:U"], "the option 'U' is not known"),
        (["--mount", "type=bind,source=here,target=/b"], "is not type=bind,source=/PATH"),
        (["--mount", "type=bind,source=/a,target=/b,colour=red"], "the key 'colour' is not known"),
        (["--tmpfs", "/t:many"], "the option 'many' is not known"),
        (["--tmpfs", "/t:mode=999"], "the option 'mode=999' is not known"),
        (["--security-opt", "seccomp=profile.json"], "seccomp=unconfined can"),
        (["--security-opt", "apparmor=mine"], "the guest has no AppArmor"),
        (["--security-opt", "no-new-privileges:maybe"], "cannot be honoured"),
        (["--stop-signal", "NONE"], "there is no signal"),
        (["--device", "/dev/a:/dev/b:/dev/c"], "is not DEVICE"),
        (["--cap-add", "fly"], "no capability CAP_FLY"),
        (["--read-only", "--rootfs", "/x:rw"], "contradict each other"),
    ],
)
def test_options_that_cannot_be_read_are_refused(words, told):
    with pytest.raises(InvalidRequest, match=told):
        spec_of(*words)


def test_a_size_needs_a_unit_and_a_command_is_needed():
    with pytest.raises(click.BadParameter, match="give a number and a unit"):
        spec_of("--memory", "512")
    with pytest.raises(InvalidRequest, match="no command was given"):
        made.main(["--"], standalone_mode=False)


def test_options_make_limits_of_a_process():
    limits = spec_of(
        "--ulimit", "nofile=1024:65536", "--ulimit", "core=0", "--ulimit", "memlock=-1"
    ).process.rlimits
    assert limits == (
        Rlimit("RLIMIT_NOFILE", 1024, 65536),
        Rlimit("RLIMIT_CORE", 0, 0),
        Rlimit("RLIMIT_MEMLOCK", 2**64 - 1, 2**64 - 1),
    )
    for text in (
        "files=1",
        "nofile",
        "nofile=",
        "nofile=2:1",
        "nofile=1:",
        "nofile=-2",
        "core=0x1",
        "nofile=-1:5",
    ):
        with pytest.raises(InvalidRequest, match="--ulimit"):
            spec_of("--ulimit", text)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        *(
            ("TERM", 15),
            ("sigkill", 9),
            ("9", 9),
            ("RTMIN", 34),
            ("SIGRTMIN+3", 37),
            ("rtmax-2", 62),
            ("64", 64),
        ),
        *(("SIGRTMIN+30", 64), ("SIGRTMAX-30", 34)),
        *(
            (text, None)
            for text in (
                "0",
                "65",
                "-9",
                "",
                "SIG",
                "RTMIN+31",
                "RTMAX-31",
                "RTMIN+",
                "RTMIN-1",
                "1e1",
            )
        ),
    ],
)
def test_signals_have_one_meaning(text, number):
    if number is None:
        with pytest.raises(InvalidRequest, match="there is no signal"):
            signal_number(text)
    else:
        assert signal_number(text) == number
        assert signal_number(signal_name(number)) == number
