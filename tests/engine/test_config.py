"""Configuration: which file wins, and every problem at once."""

from __future__ import annotations

import dataclasses
import os
import re
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner

from vc_core.cli import vc
from vc_core.config import PARTS, Config, convert, find, load, parse
from vc_core.engine.wiring.plugin_checks import constructor_problem
from vc_core.spec import ConfigError


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("VC_CONFIG", raising=False)
    return tmp_path


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def problems(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse(text, Path("vc.toml"))
    return list(caught.value.problems)


def test_one_file_wins(home, monkeypatch):
    assert load() == Config()
    user = write(home / "home/virtcontainers/config.toml", "[pod]\nvcpus = 2\n")
    assert (find(), load().pod.vcpus, load().pod.memory_mib) == (("user file", user), 2, 256)
    named = write(home / "named.toml", "[pod]\nmemory_mib = 512\n")
    monkeypatch.setenv("VC_CONFIG", str(named))
    assert (load().pod.vcpus, load().pod.memory_mib) == (1, 512)
    explicit = write(home / "explicit.toml", "[use]\nobservers = ['a']\n")
    assert (load(explicit).use.observers, load(explicit).pod.memory_mib) == (("a",), 256)


def test_a_named_file_must_exist(home):
    with pytest.raises(
        ConfigError,
        match=r"--config names .*none\.toml, which is not a file; create it with 'vc config init",
    ):
        load(home / "none.toml")


def test_every_problem_comes_at_once_with_line_and_nearest_name():
    text = (
        "[use]\nhypervisr = 'x'\ndevices = 'block'\n[pod]\nvcpus = 0\nmemory = 1\n\n[deadlines]\n"
        "boot = 'soon'\n"
    )
    told = problems(text)
    assert told[0] == 'vc.toml:2: use.hypervisr: unknown key; did you mean "hypervisor"?'
    assert told[1].startswith("vc.toml:3: use.devices: expected `array`")
    assert 'vc.toml:6: pod.memory: unknown key; did you mean "memory_mib"?' in told
    assert any(line.startswith("vc.toml:9: deadlines.boot: expected `float`") for line in told)


def test_values_that_cannot_be():
    assert problems("[pod]\nvcpus = 0\n") == ["vc.toml:2: pod.vcpus: must be at least 1"]
    (told,) = problems("[pod]\nallow = ['good.test:443', 'a:0']\nrate_in = '10mbit'\n")
    assert told == "vc.toml:2: pod.allow: 'a:0' is no rule of a network: ports are 1 to 65535"
    (told,) = problems("[pod]\nrate_out = 'fast'\n")
    assert told.startswith("vc.toml:2: pod.rate_out: 'fast' is no rate")


def test_a_choice_outside_its_table_is_told_where_it_belongs():
    assert problems("hypervisor = 'qemu'\n") == [
        "vc.toml:1: hypervisor: must be in the table [use]"
    ]


@pytest.mark.parametrize("text", ["pod = 3\n", "hypervisor = 3\n", "[hypervisor]\nqemu = 3\n"])
def test_a_value_where_a_table_belongs(text):
    assert "table" in problems(text)[0]


def test_text_that_is_no_toml_has_its_line():
    assert "line 1" in problems("= 3\n")[0]


def test_tables_stay_raw_until_their_owner_parses_them():
    found = parse("[hypervisor.qemu]\nanything = 1\n")
    assert found.tables == {("hypervisor", "qemu"): {"anything": 1}}


def test_a_table_that_nearly_names_a_chosen_plugin_is_a_typo():
    assert 'did you mean "hypervisor.qemu"' in problems("[hypervisor.qmu]\nbinary = 'x'\n")[0]


def test_check_parses_plugin_tables_too(home):
    text = (
        "[hypervisor.qemu]\nbinari = 'x'\nroot_ports = 99\naccelerator = 'fast'\n[pod]\ncpus = 1\n"
    )
    file = write(home / "c.toml", text)
    done = CliRunner().invoke(vc, ["config", "check", str(file)], standalone_mode=False)
    told = done.stderr.splitlines()
    assert done.return_value == 125
    assert f'{file}:6: pod.cpus: unknown key; did you mean "vcpus"?' in told, (
        "the core's problems come with the plugins'"
    )
    assert f'{file}:2: hypervisor.qemu.binari: unknown key; did you mean "binary"?' in told
    assert any(
        line.startswith(f"{file}:4: hypervisor.qemu.accelerator: invalid enum value")
        for line in told
    )


def test_init_writes_a_file_that_is_good_with_every_line_uncommented(home):
    runner = CliRunner()
    file = home / "made.toml"
    assert runner.invoke(vc, ["config", "init", str(file)], standalone_mode=False).exception is None
    assert parse(file.read_text()) == Config()
    live = "\n".join(
        line.removeprefix("# ")
        for line in file.read_text().splitlines()
        if " = " in line or line.startswith("# [")
    )
    assert parse(live).use == Config().use
    again = runner.invoke(vc, ["config", "init", str(file)], standalone_mode=False)
    assert "already exists; use --force to overwrite it" in str(again.exception)


def test_show_says_where_values_come_from(home, monkeypatch):
    file = write(home / "c.toml", "[hypervisor.qemu]\nroot_ports = 3\n")
    told = (
        CliRunner()
        .invoke(vc, ["--config", str(file), "config", "show"], standalone_mode=False)
        .stdout
    )
    assert told.startswith(f"# {file} (--config)")
    assert "root_ports = 3" in told
    assert 'run_root = "/' in told


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make files of others")
@pytest.mark.parametrize("subject", ["file", "folder", "open file", "open folder", "link"])
def test_a_configuration_that_others_could_have_written_is_not_obeyed(home, monkeypatch, subject):
    """As root with the HOME of an ordinary user; --config names what is used as it is."""
    user = write(home / "home/virtcontainers/config.toml", "[pod]\nvcpus = 2\n")
    assert load().pod.vcpus == 2
    changed = user.parent if "folder" in subject else user
    if "open" in subject:
        changed.chmod(0o777)
    elif subject == "link":
        theirs = write(home / "theirs/config.toml", "[pod]\nvcpus = 3\n")
        os.chown(theirs, 65534, 65534)
        user.unlink()
        user.symlink_to(theirs)
    else:
        os.chown(changed, 65534, 65534)
    with pytest.raises(
        ConfigError, match=r"config\.toml \(user file\) is not used: .*; correct its owner"
    ):
        load()
    monkeypatch.setenv("VC_CONFIG", str(user))
    with pytest.raises(ConfigError, match=r"config\.toml \(\$VC_CONFIG\) is not used: "):
        load()
    assert load(user).pod.vcpus in {2, 3}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_a_home_that_cannot_be_entered_is_told_in_one_line(tmp_path):
    tmp_path.chmod(0o700)
    words = [
        "setpriv",
        "--reuid",
        "65534",
        "--clear-groups",
        sys.executable,
        "-P",
        "-m",
        "vc_core",
        "config",
        "show",
    ]
    environ = {**os.environ, "XDG_CONFIG_HOME": str(tmp_path / "home")}
    environ.pop("VC_CONFIG", None)
    done = subprocess.run(words, capture_output=True, text=True, check=False, cwd="/", env=environ)
    assert done.returncode == 125
    assert re.fullmatch(
        r"vc: error: .*config\.toml cannot be read: Permission denied; set HOME, or .*\n",
        done.stderr,
    )


@pytest.mark.parametrize("content", [b"\xff\xfe", b"[pod"])
def test_what_is_no_text_is_told_in_one_line(home, content):
    file = home / "x.toml"
    file.write_bytes(content)
    with pytest.raises(ConfigError, match=r"x\.toml"):
        load(file)


def test_a_relative_path_is_refused_for_it_means_another_folder_each_time():
    assert problems("[image]\ndir = 'images'\n") == [
        "vc.toml:2: image.dir: must be an absolute path"
    ]


def test_the_options_of_a_plugin_are_a_struct_or_a_dataclass():
    struct = msgspec.defstruct("Options", [("size", int, 1)])
    data = dataclasses.make_dataclass("Options", [("size", int, 1)])
    for kind in (struct, data):
        problems: list[str] = []
        assert convert(kind, {"size": 3}, "hypervisor.x", problems).size == 3
        assert convert(kind, {"sise": 3}, "hypervisor.x", problems) is None
        assert problems == ['hypervisor.x.sise: unknown key; did you mean "size"?']
        factory = type("Plugin", (), {"options_type": kind, "__init__": lambda self, options: None})
        assert constructor_problem(factory) == ""


def test_settings_are_structs():
    # A dataclass compiles its functions when it is defined, in each command.
    assert not [kind for kind in PARTS.values() if dataclasses.is_dataclass(kind)]
