"""Options of `vc run` make a specification; invalid ones are refused."""

from __future__ import annotations

from pathlib import Path

import click
import pytest

from tests.cli.specs import make_spec, spec_of
from vc_core.cli.mounts import bind
from vc_core.engine.host.volumes import Volumes
from vc_core.signals import signal_name, signal_number
from vc_core.spec import (
    InvalidRequest,
    Resources,
    Rlimit,
    Rootfs,
    RootfsMode,
)


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
    assert spec.rootfs == Rootfs(path=Path("/x"), mode=RootfsMode.READ_ONLY)
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
    assert spec.resources == Resources(
        cpu_quota_us=150_000,
        cpu_period_us=100_000,
        cpu_shares=512,
        cpuset="0-1",
        memory_bytes=64 << 20,
        pids=9,
    )
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
        (["-v", "/a:/b:U"], "unknown option 'U'"),
        (["--mount", "type=bind,source=here,target=/b"], "is not type=bind,source=/PATH"),
        (["--mount", "type=bind,source=/a,target=/b,colour=red"], "unknown key 'colour'"),
        (["--tmpfs", "/t:many"], "unknown option 'many'"),
        (["--tmpfs", "/t:mode=999"], "unknown option 'mode=999'"),
        (["--security-opt", "seccomp=profile.json"], "use seccomp=unconfined"),
        (["--security-opt", "apparmor=mine"], "the guest has no AppArmor"),
        (["--security-opt", "no-new-privileges:maybe"], "is not supported"),
        (["--stop-signal", "NONE"], "there is no signal"),
        (["--device", "/dev/a:/dev/b:/dev/c"], "is not DEVICE"),
        (["--cap-add", "fly"], "unknown capability CAP_FLY"),
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
        make_spec.main(["--"], standalone_mode=False)


def test_options_make_limits_of_a_process():
    limits = spec_of(
        "--ulimit", "nofile=1024:65536", "--ulimit", "core=0", "--ulimit", "memlock=-1"
    ).process.rlimits
    assert limits == (
        Rlimit(kind="RLIMIT_NOFILE", soft=1024, hard=65536),
        Rlimit(kind="RLIMIT_CORE", soft=0, hard=0),
        Rlimit(kind="RLIMIT_MEMLOCK", soft=2**64 - 1, hard=2**64 - 1),
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
