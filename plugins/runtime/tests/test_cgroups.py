"""The caller's control groups."""

from __future__ import annotations

import errno
import logging
import os
from pathlib import Path

import pytest
from vc_runtime import cgroups
from vc_runtime.errors import RuntimeFailure

V1 = "4:memory:/\n3:cpu,cpuacct:/\n9:name=systemd:/\n"


@pytest.fixture
def host(tmp_path, monkeypatch):
    """Writes what the kernel says of hierarchies; those are folders of the test."""

    def write(own: str, *mounts: str) -> None:
        (tmp_path / "own").write_text(own)
        fields = (line.split(" ") for line in mounts)
        lines = (
            f"1 0 0:1 / {tmp_path}/{name} rw - {kind} none {options}\n"
            for name, kind, options in fields
        )
        (tmp_path / "mounts").write_text("".join(lines))
        monkeypatch.setattr(cgroups, "_OWN", tmp_path / "own")
        monkeypatch.setattr(cgroups, "_MOUNTS", tmp_path / "mounts")

    return write


@pytest.mark.parametrize(
    ("text", "is_systemd", "path"),
    [
        ("", True, ""),
        ("/kube/pod", False, "kube/pod"),
        ("a:b:c", False, "a:b:c"),
        ("system.slice:libpod:c", True, "system.slice/libpod-c.scope"),
        (":libpod:c", True, "system.slice/libpod-c.scope"),
        ("a-b.slice:cri:c", True, "a.slice/a-b.slice/cri-c.scope"),
        ("a.slice::b.slice", True, "a.slice/b.slice"),
        ("-.slice:cri:c", True, "cri-c.scope"),
    ],
)
def test_a_name_is_a_path(text, is_systemd, path):
    assert cgroups.path_of(text, is_systemd) == path


@pytest.mark.parametrize(
    ("text", "is_systemd"),
    [
        ("/a/../../b", False),
        ("/a", True),
        ("a:b", True),
        ("a/b.slice:c:d", True),
        ("a--b.slice:c:d", True),
        ("-a.slice:c:d", True),
        ("-.slice::..", True),
        ("system.slice::..", True),
        ("-.slice::.", True),
        ("a.slice::", True),
    ],
)
def test_a_name_that_means_no_group_is_refused(text, is_systemd):
    with pytest.raises(RuntimeFailure, match=r"linux\.cgroupsPath"):
        cgroups.path_of(text, is_systemd)


def test_beside_controllers_of_version_1_a_mount_of_version_2_is_left_out(host, tmp_path):
    mounts = ("memory cgroup rw,memory", "cpu cgroup rw,cpu,cpuacct", "s cgroup rw,name=systemd")
    host(f"{V1}0::/\n", *mounts, "unified cgroup2 rw")
    folders = [str(tmp_path / name / "kube/c") for name in ("memory", "cpu", "s")]
    for name in ("memory", "cpu", "s"):
        (tmp_path / name).mkdir()
    assert list(cgroups.join("kube/c")) == folders
    assert cgroups.memory_of(tuple(folders)) == folders[0]


@pytest.fixture
def unified(host, tmp_path):
    """A hierarchy of version 2, whose controllers are memory and rdma."""
    host("9:name=systemd:/\n0::/\n", "s cgroup rw,name=systemd", "top cgroup2 rw")
    top = tmp_path / "top"
    for folder in (top, top / "kube", top / "kube/c"):
        folder.mkdir()
        (folder / "cgroup.controllers").write_text("memory rdma\n")
        (folder / "cgroup.subtree_control").write_text("\n")
        (folder / "cgroup.procs").write_text("")
        (folder / "cgroup.type").write_text("domain\n")
    (top / "cgroup.type").unlink()
    (top / "cgroup.procs").write_text("1\n")
    return top


def test_without_controllers_of_version_1_groups_above_pass_those_of_version_2_on(unified):
    assert cgroups.join("kube/c") == (str(unified / "kube/c"),)
    for folder, passed in ((unified, "+memory"), (unified / "kube", "+memory")):
        assert (folder / "cgroup.subtree_control").read_text() == passed
    assert (unified / "kube/c/cgroup.subtree_control").read_text() == "\n"
    assert (unified / "kube/c/cgroup.procs").read_text() == str(os.getpid())


def test_a_group_with_processes_passes_nothing_on(unified):
    (unified / "kube/cgroup.procs").write_text("7\n")
    cgroups.join("kube/c")
    assert (unified / "kube/cgroup.subtree_control").read_text() == "\n"
    assert cgroups.memory_of((str(unified / "kube/c"),)) == ""


@pytest.mark.parametrize(
    ("present", "limit"),
    [("max", 128 << 20), ("1000", 1000), (str(1 << 40), 128 << 20)],
)
def test_a_machine_keeps_its_bound_in_a_group_of_version_2(unified, monkeypatch, present, limit):
    monkeypatch.setattr(cgroups, "_places", lambda _: {"": "/jail"})
    (unified / "jail").mkdir()
    (unified / "jail/memory.max").write_text(f"{64 << 20}\n")
    (unified / "jail/pids.max").write_text("max\n")
    group = unified / "kube/c"
    (group / "memory.max").write_text(f"{present}\n")
    cgroups.adopt((str(group),), 77)
    assert (group / "memory.max").read_text() == str(limit)
    assert (group / "cgroup.procs").read_text() == "77"
    assert not (group / "pids.max").exists()


def test_a_machine_stays_where_it_is_bounded(unified, monkeypatch, caplog):
    monkeypatch.setattr(cgroups, "_places", lambda _: {"": "/jail"})
    (unified / "jail").mkdir()
    (unified / "jail/memory.max").write_text("1\n")
    cgroups.adopt((str(unified / "kube/c"),), 77)
    assert (unified / "kube/c/cgroup.procs").read_text() == ""
    assert "has no memory.max" in caplog.text


def test_a_group_that_is_not_removed_is_told_and_no_obstacle(tmp_path, monkeypatch, caplog):
    odd, gone, plain = tmp_path / "odd", tmp_path / "gone", tmp_path / "plain"
    odd.write_text("")  # fails with an error that nobody has thought of
    plain.mkdir()
    monkeypatch.setattr(cgroups, "_folders", lambda _: (odd, gone, plain))
    with caplog.at_level(logging.WARNING):
        assert cgroups.remove("group") == (str(odd),)
    assert not plain.exists()
    assert [record.getMessage() for record in caplog.records] == [
        f"{odd} is not removed: Not a directory"
    ]


def test_a_group_that_its_owner_limits_is_left_as_it_was(unified, monkeypatch, caplog):
    monkeypatch.setattr(cgroups, "_places", lambda _: {"": "/jail"})
    (unified / "jail").mkdir()
    group = unified / "kube/c"
    for folder, limit in ((unified / "jail", "1000"), (group, "max")):
        for name in ("memory.max", "pids.max"):
            (folder / name).write_text(limit)
    written = Path.write_text

    def write(file: Path, text: str) -> int:
        if file.name == "pids.max":
            raise PermissionError(errno.EACCES, "no right", str(file))
        return written(file, text)

    monkeypatch.setattr(Path, "write_text", write)
    cgroups.adopt((str(group),), 77)
    assert "the machine is not in the control group" in caplog.text
    assert (group / "memory.max").read_text() == "max"
    assert (group / "cgroup.procs").read_text() == ""


@pytest.mark.parametrize("number", [errno.ENODEV, errno.EOPNOTSUPP])
def test_groups_that_vanish_or_have_threads_stop_no_delete(unified, monkeypatch, number):
    (unified / "kube/c/cgroup.procs").write_text("7\n")

    def read(file: Path) -> str:
        raise OSError(number, os.strerror(number), str(file))

    text = Path.read_text
    monkeypatch.setattr(
        Path, "read_text", lambda file: (read if file.name == "cgroup.procs" else text)(file)
    )
    assert cgroups.processes("kube/c") == set()


def test_version_2_counts_beside_a_controller_of_version_1_that_counts_nothing(host, tmp_path):
    host("4:net_cls:/\n0::/\n", "cls cgroup rw,net_cls", "top cgroup2 rw")
    for name in ("cls", "top"):
        (tmp_path / name).mkdir()
    (tmp_path / "top/cgroup.controllers").write_text("cpu memory pids\n")
    (tmp_path / "top/cgroup.subtree_control").write_text("\n")
    assert [Path(one).parent.name for one in cgroups.join("c")] == ["cls", "top"]
