"""What engines write into config.json, and what a machine makes of it."""

from __future__ import annotations

import json

import pytest
from vc_runtime import bundles, cgroups
from vc_runtime.errors import RuntimeFailure

from vc_core.spec import MountKind

PAUSE = "a" * 64


@pytest.fixture
def read(tmp_path):
    """Reads a config.json with these namespaces, by their paths."""

    def reading(namespaces, annotations=None, mounts=(), sysctl=None):
        listed = [{"type": kind, **({"path": path} if path else {})} for kind, path in namespaces]
        document = {
            "ociVersion": "1.3.0",
            "process": {"args": ["sh"], "cwd": "/", "user": {"uid": 0, "gid": 0}},
            "root": {"path": "rootfs"},
            "mounts": list(mounts),
            "annotations": annotations or {},
            "linux": {"namespaces": listed, "cgroupsPath": "/k8s.io/c", "sysctl": sysctl or {}},
        }
        (tmp_path / "config.json").write_text(json.dumps(document))
        return bundles.read(tmp_path, "c", ())

    return reading


def test_a_container_of_its_own_has_a_pod_of_its_own(read):
    found = read([("pid", ""), ("network", ""), ("mount", "")])
    assert (found.sandbox, found.network, found.groups) == ("", "none", "/k8s.io/c")
    assert found.container.confinement.namespaces == ("pid", "mount")


def test_a_sandbox_sets_sysctls_for_its_pod(read):
    notes = {"io.kubernetes.cri.container-type": "sandbox", "io.kubernetes.cri.sandbox-id": "c"}
    sysctl = {"kernel.shm_rmid_forced": "1"}
    found = read([("ipc", ""), ("network", ""), ("mount", "")], notes, sysctl=sysctl)
    assert found.container.confinement.namespaces == ("mount",)
    assert found.container.confinement.sysctl == (("kernel.shm_rmid_forced", "1"),)


def test_a_network_namespace_is_that_of_the_pod(read, tmp_path):
    (tmp_path / "ns").touch()
    (tmp_path / "link").symlink_to("ns")
    found = read([("network", str(tmp_path / "link"))])
    assert found.network == f"ns:{tmp_path}/ns"


@pytest.mark.parametrize(
    "annotations",
    [
        {
            "io.kubernetes.cri.container-type": "container",
            "io.kubernetes.cri.sandbox-id": PAUSE,
        },
        {
            "io.kubernetes.cri-o.ContainerType": "container",
            "io.kubernetes.cri-o.SandboxID": PAUSE,
        },
    ],
)
def test_members_of_pods_name_their_sandbox(read, annotations):
    shared = [(kind, f"/proc/7/ns/{name}") for kind, name in (("network", "net"), ("uts", "uts"))]
    found = read([*shared, ("pid", ""), ("mount", "")], annotations)
    assert found.sandbox == PAUSE
    assert found.container.confinement.namespaces == ("pid", "mount")


def test_a_member_without_a_sandbox_is_refused(read):
    with pytest.raises(RuntimeFailure, match="names no sandbox id"):
        read([("network", "")], {"io.kubernetes.cri.container-type": "container"})


def test_the_hosts_network_is_refused(read):
    with pytest.raises(RuntimeFailure, match="host's network"):
        read([("pid", "")])


def test_namespaces_are_told_by_their_paths(read):
    joined = {"pid": "/proc/7/ns/pid", "network": "/proc/7/ns/net", "ipc": "/proc/7/ns/ipc"}
    found = read([*joined.items(), ("mount", "")])
    assert found.joined == joined
    assert found.network == "ns:/proc/7/ns/net"


def test_shared_memory_is_the_guests(read, tmp_path):
    (tmp_path / "shm").mkdir()
    bind = {"destination": "/dev/shm", "type": "bind", "source": "shm", "options": ["bind"]}
    tmpfs = {"destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": ["size=2m"]}
    dev = {"destination": "/dev", "type": "tmpfs", "source": "tmpfs"}
    found = read([("network", "")], mounts=[dev, bind])
    assert [mount.kind for mount in found.container.mounts] == [MountKind.TMPFS] * 2
    assert found.options.shared_shm_bytes > 0
    assert read([("network", "")], mounts=[dev, tmpfs]).options.shared_shm_bytes == 2 << 20
    assert read([("network", "")], mounts=[dev]).options.shared_shm_bytes == 0


def test_settings_of_the_network_are_set_by_every_container(read):
    sysctl = {"net.ipv4.ping_group_range": "0 1", "kernel.shmmax": "1"}
    found = read([("network", "")], sysctl=sysctl)
    assert found.container.confinement.sysctl == tuple(sysctl.items())


def test_names_of_control_groups():
    assert cgroups.path_of("/libpod_parent/libpod-c", is_systemd=False) == "libpod_parent/libpod-c"
    assert cgroups.path_of("", is_systemd=False) == ""
    nested = cgroups.path_of("user-libpod.slice:libpod:c", is_systemd=True)
    assert nested == "user.slice/user-libpod.slice/libpod-c.scope"
    assert cgroups.path_of(":vc:c", is_systemd=True) == "system.slice/vc-c.scope"
    for text, is_systemd in (("/a/../b", False), ("/no/colons", True)):
        with pytest.raises(RuntimeFailure):
            cgroups.path_of(text, is_systemd)
