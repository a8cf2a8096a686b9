"""Whose machine and pid namespace a container joins."""

from __future__ import annotations

import subprocess

import pytest
from vc_runtime.errors import RuntimeFailure
from vc_runtime.namespaces import check_types, pod_and_pid_owner
from vc_runtime.records import Record, Records

from vc_core.driver_kit.host_process import HostProcess


@pytest.fixture
def records(tmp_path):
    """Two containers of one pod, and one of another; their stand-ins live."""
    with (
        subprocess.Popen(["sleep", "1000"]) as infra,
        subprocess.Popen(["sleep", "1000"]) as member,
        subprocess.Popen(["sleep", "1000"]) as other,
    ):
        found = Records(tmp_path)
        found.pids = {"infra": infra.pid, "member": member.pid, "other": other.pid}
        for name, pid in found.pids.items():
            found.add(
                Record(
                    id=name,
                    pod="q" if name == "other" else "p",
                    container=f"c-{name}",
                    owns_pod=name != "member",
                    bundle="/b",
                    pid=pid,
                    start_ticks=HostProcess.of(pid).start_ticks,
                )
            )
        yield found
        for process in (infra, member, other):
            process.kill()


def joined(records, **kinds):
    return {kind: f"/proc/{records.pids[name]}/ns/{kind[:3]}" for kind, name in kinds.items()}


def test_a_container_that_joins_nothing_has_a_pod_of_its_own(records):
    assert pod_and_pid_owner({}, "", records) == ("", None)
    assert pod_and_pid_owner({"network": "/run/netns/x"}, "", records) == ("", None)
    assert pod_and_pid_owner({"network": "/proc/1/ns/net"}, "", records) == ("", None)


def test_a_member_joins_the_pid_namespace_of_any_container_of_its_pod(records):
    for name in ("infra", "member"):
        pod, owner = pod_and_pid_owner(joined(records, pid=name), "infra", records)
        assert (pod, owner.container) == ("p", f"c-{name}")
    assert pod_and_pid_owner({}, "infra", records) == ("p", None)
    with pytest.raises(RuntimeFailure, match="in the machine of another pod"):
        pod_and_pid_owner(joined(records, pid="other"), "infra", records)


def test_a_container_joins_the_machine_whose_network_it_joins(records):
    assert pod_and_pid_owner(joined(records, network="other"), "", records) == ("q", None)
    both = joined(records, network="member", pid="member", ipc="infra")
    pod, owner = pod_and_pid_owner(both, "", records)
    assert (pod, owner.id) == ("p", "member")


@pytest.mark.parametrize("kinds", [{"pid": "infra"}, {"ipc": "infra", "network": "other"}])
def test_namespaces_of_a_machine_need_its_network(records, kinds):
    with pytest.raises(RuntimeFailure, match="must be joined, too"):
        pod_and_pid_owner(joined(records, **kinds), "", records)


def test_the_pid_namespace_of_an_unknown_process_is_refused(records):
    with pytest.raises(RuntimeFailure, match="of no running container"):
        pod_and_pid_owner({"pid": "/proc/1/ns/pid"}, "", records)


def test_a_path_names_a_namespace_of_its_kind(tmp_path):
    names = {"mount": "mnt", "network": "net", **{kind: kind for kind in ("pid", "ipc", "uts")}}
    check_types({kind: f"/proc/self/ns/{name}" for kind, name in names.items()})
    for kind, path in (
        ("ipc", "/proc/self/ns/mnt"),
        ("mount", "/proc/self/ns/net"),
        ("cgroup", "/proc/self/ns/ipc"),
        ("uts", str(tmp_path)),
        ("uts", "/dev/null"),
    ):
        with pytest.raises(RuntimeFailure, match=f"{path} is no {kind} namespace"):
            check_types({kind: path})
    with pytest.raises(RuntimeFailure, match="the uts namespace /nowhere: No such file"):
        check_types({"uts": "/nowhere"})
