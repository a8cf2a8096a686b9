"""Records of containers, and the states that follow from them."""

from __future__ import annotations

import json
import os
import signal
import subprocess

import pytest
from msgspec import structs
from vc_runtime import command
from vc_runtime.errors import RuntimeFailure
from vc_runtime.records import Record, Records, choosing_environment, pod_id_of

from vc_core.driver_kit import HostProcess

NEW = Record(id="c", pod="p", container="p", owns_pod=True, bundle="/b")


@pytest.fixture
def sleeper():
    with subprocess.Popen(["sleep", "1000"]) as process:
        yield process
        process.kill()


def of(process: subprocess.Popen[bytes], **changes: object) -> Record:
    found = HostProcess.of(process.pid)
    return structs.replace(NEW, pid=found.pid, start_ticks=found.start_ticks, **changes)


def test_the_state_follows_from_the_stand_in(sleeper):
    assert NEW.status == "creating"
    assert of(sleeper).status == "created"
    assert of(sleeper, was_started=True).status == "running"
    paused = of(sleeper, was_started=True, is_paused=True)
    assert paused.status == "paused"
    assert structs.replace(paused, start_ticks=1).status == "stopped"  # another process's pid
    sleeper.kill()
    sleeper.wait()
    assert paused.status == "stopped"


def test_an_id_is_taken_once_and_checked(tmp_path):
    records = Records(tmp_path / "root")
    records.add(NEW)
    with pytest.raises(RuntimeFailure, match="container with id exists: c"):
        records.add(NEW)
    for name in ("", ".", "..", "a/b", "a\n"):
        with pytest.raises(RuntimeFailure, match="invalid container id"):
            records.get(name)
    assert [one.id for one in records.all()] == ["c"]
    records.remove("c")
    records.remove("c")
    assert list(records.all()) == []


def test_a_damaged_record_is_deleted_by_force(tmp_path, capsys):
    Records(tmp_path).add(NEW)
    (tmp_path / "c/container.json").write_text("{")
    words = ("--root", str(tmp_path))
    assert command.run((*words, "state", "c")) == 1
    assert "delete it with --force" in capsys.readouterr().err
    Records(tmp_path).add(structs.replace(NEW, id="whole"))
    assert command.run((*words, "list", "--quiet")) == 0
    assert capsys.readouterr().out == "whole\n", "one that is damaged hides the others"
    assert command.run((*words, "delete", "--force", "c")) == 0
    assert not (tmp_path / "c").exists()


def test_a_create_that_could_not_write_its_record_keeps_no_id(tmp_path, monkeypatch, capsys):
    """A full disk; or a kill in between, which leaves the folder."""
    with monkeypatch.context() as full:
        full.setattr(Records, "put", lambda *_: (_ for _ in ()).throw(OSError(28, "No space")))
        with pytest.raises(OSError, match="No space"):
            Records(tmp_path).add(NEW)
    Records(tmp_path).add(NEW)
    (tmp_path / "c/container.json").unlink()
    words = ("--root", str(tmp_path))
    assert command.run((*words, "state", "c")) == 1
    assert "delete it with --force" in capsys.readouterr().err
    assert command.run((*words, "delete", "--force", "c")) == 0
    Records(tmp_path).add(NEW)


def test_a_signal_goes_to_the_stand_in(tmp_path, sleeper, capsys):
    records = Records(tmp_path)
    records.add(of(sleeper, was_started=True))
    words = ("--root", str(tmp_path))
    assert command.run((*words, "state", "c")) == 0
    assert json.loads(capsys.readouterr().out)["status"] == "running"
    assert command.run((*words, "kill", "c", "SIGUSR1")) == 0
    assert sleeper.wait(60) == -signal.SIGUSR1
    assert command.run((*words, "kill", "c", "TERM")) == 1
    assert "container not running" in capsys.readouterr().err
    assert command.run((*words, "kill", "--all", "c", "9")) == 0
    assert command.run((*words, "list", "--format", "json")) == 0
    assert json.loads(capsys.readouterr().out)[0]["status"] == "stopped"


def test_a_recycled_pid_gets_no_signal(tmp_path, sleeper):
    Records(tmp_path).add(of(sleeper, was_started=True))
    Records(tmp_path).put(structs.replace(of(sleeper), start_ticks=1, was_started=True))
    assert command.run(("--root", str(tmp_path), "kill", "c", "9")) == 1
    os.kill(sleeper.pid, 0)
    assert sleeper.poll() is None


def test_pods_have_short_ids():
    assert pod_id_of("ab" * 32) == "ab" * 6
    assert len(pod_id_of("a-name-that-somebody-chose")) == 12
    assert pod_id_of("one") != pod_id_of("two")


def test_a_control_group_is_known_beside_a_damaged_record(tmp_path):
    records = Records(tmp_path)
    records.add(NEW)
    assert records.group("c") == ""
    records.put_group("c", "k8s.io/c")
    (tmp_path / "c/container.json").write_text("{")
    assert records.group("c") == "k8s.io/c"
    (tmp_path / "c/group.json").write_text('"k8s')
    with pytest.raises(RuntimeFailure, match="is damaged"):
        records.group("c")


def test_a_damaged_control_group_is_told_and_the_container_deleted(tmp_path, capsys):
    Records(tmp_path).add(NEW)
    for name in ("container.json", "group.json"):
        (tmp_path / "c" / name).write_text("{")
    assert command.run(("--root", str(tmp_path), "delete", "--force", "c")) == 0
    assert "its control groups are not removed" in capsys.readouterr().err
    assert list(Records(tmp_path).all()) == []


def test_later_commands_choose_the_store_of_create(monkeypatch):
    monkeypatch.setenv("VC_CONFIG", "/of/create.toml")
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    record = structs.replace(NEW, environment=choosing_environment())
    monkeypatch.setenv("VC_CONFIG", "/of/another.toml")
    monkeypatch.setenv("XDG_STATE_HOME", "/of/another")
    monkeypatch.delenv("HOME")
    record.restore_environment()
    assert os.environ["VC_CONFIG"] == "/of/create.toml"
    assert "XDG_STATE_HOME" not in os.environ
    assert "HOME" in os.environ


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes what belongs to others")
def test_records_that_another_user_can_write_are_not_used(tmp_path):
    root = tmp_path / "root"
    Records(root).add(NEW)
    Records(root).get("c")
    early = Records(tmp_path / "early")
    for folder in (root, tmp_path / "early"):
        folder.mkdir(exist_ok=True)
        os.chown(folder, 65534, 65534)
    with pytest.raises(RuntimeFailure, match="name a folder of yours"):
        Records(root)
    with pytest.raises(RuntimeFailure, match="early is not used"):
        early.add(NEW)  # made by another user meanwhile
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    os.lchown(tmp_path / "link", 65534, 65534)
    with pytest.raises(RuntimeFailure, match="link belongs to"):
        Records(tmp_path / "link")
    os.chown(root, 0, 0)
    root.chmod(0o777)
    with pytest.raises(RuntimeFailure, match="can be written by other users"):
        Records(root)
