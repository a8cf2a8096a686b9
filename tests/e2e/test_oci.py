"""Containers from OCI bundles, on real machines."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import GUESTS, HYPERVISORS

pytestmark = pytest.mark.only("qemu")

PLAIN = ["nosuid", "noexec", "nodev"]
MOUNTS = [
    {"destination": "/proc", "type": "proc", "source": "proc"},
    {
        "destination": "/dev",
        "type": "tmpfs",
        "source": "tmpfs",
        "options": ["nosuid", "mode=755", "size=65536k"],
    },
    {
        "destination": "/dev/pts",
        "type": "devpts",
        "source": "devpts",
        "options": ["newinstance", "ptmxmode=0666"],
    },
    {
        "destination": "/dev/shm",
        "type": "tmpfs",
        "source": "shm",
        "options": [*PLAIN, "mode=1777", "size=4096k"],
    },
    {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": [*PLAIN, "ro"]},
    {
        "destination": "/sys/fs/cgroup",
        "type": "cgroup",
        "source": "cgroup",
        "options": [*PLAIN, "ro"],
    },
]


@pytest.fixture
def bundle(busybox, tmp_path):
    """Writes a bundle around busybox."""

    def write(name: str, *args: str, **changes: Any) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        (folder / "rootfs").symlink_to(busybox)
        process = {
            "args": list(args),
            "cwd": "/",
            "env": ["PATH=/bin"],
            "user": {"uid": 0, "gid": 0},
        }
        config = {
            "ociVersion": "1.0.2",
            "process": {**process, **changes.pop("process", {})},
            "root": {"path": "rootfs", **changes.pop("root", {})},
            "hostname": "bundled",
            "mounts": [*MOUNTS, *changes.pop("mounts", [])],
            "linux": {
                "namespaces": [{"type": kind} for kind in ("pid", "mount", "ipc", "uts", "cgroup")],
                **changes.pop("linux", {}),
            },
            **changes,
        }
        (folder / "config.json").write_text(json.dumps(config))
        return folder

    return write


def _run(host, bundle: Path, *words: str) -> None:
    """Runs a bundle in a new pod of the container's name, to its end."""
    host.vc("container", "create", "--bundle", str(bundle), "--name", "c", *words)
    host.vc("pod", "start", "c")
    host.vc("container", "wait", "c")


@pytest.mark.only(*HYPERVISORS)
def test_a_bundle_is_obeyed_in_everything_it_says(host, bundle, busybox, tmp_path):
    (tmp_path / "out").mkdir(mode=0o777)
    (tmp_path / "out").chmod(0o777)
    (busybox / "secret").write_text("secret")
    script = """exec > /out/told 2>&1
        echo "$ODD"; id; umask; ulimit -n; hostname
        grep -E '^(CapEff|CapBnd|NoNewPrivs)' /proc/self/status
        cat /proc/sys/net/ipv4/ip_default_ttl 2>/dev/null; cat /proc/sys/kernel/msgmax
        cat /secret; touch /locked/x; chmod 600 /out; echo chmod $?
        cat /sys/fs/cgroup/pids.max; df -k /dev/shm | tail -n 1"""
    seccomp = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": ["SCMP_ARCH_X86_64"],
        "syscalls": [{"names": ["chmod", "fchmodat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1}],
    }
    (busybox / "locked").mkdir()
    caps = ["CAP_KILL", "CAP_CHOWN"]
    folder = bundle(
        "b",
        *("sh", "-c", script),
        process={
            "env": ["PATH=/bin", "ODD=a=b=c"],
            "user": {"uid": 1234, "gid": 5678, "umask": 0o27, "additionalGids": [4321]},
            "capabilities": {"bounding": caps, "effective": [], "permitted": []},
            "noNewPrivileges": True,
            "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 100, "hard": 200}],
        },
        mounts=[
            {
                "destination": "/out",
                "type": "bind",
                "source": str(tmp_path / "out"),
                "options": ["rbind", "rw"],
            }
        ],
        linux={
            "sysctl": {"kernel.msgmax": "4242"},
            "seccomp": seccomp,
            "maskedPaths": ["/secret"],
            "readonlyPaths": ["/locked"],
            "resources": {
                "pids": {"limit": 77},
                "cpu": {"quota": -1, "period": 100000},
                "memory": {"limit": -1},
            },
        },
    )
    _run(host, folder)
    told = (tmp_path / "out/told").read_text()
    host.vc("pod", "delete", "c")
    for line in (
        "a=b=c",
        "uid=1234(nina) gid=5678(staff) groups=4321(extra)",
        "\n100\n",
        "0027",
        "bundled",
        "CapEff:\t0000000000000000",
        "CapBnd:\t0000000000000021",
        "NoNewPrivs:\t1",
        "4242",
        "/locked/x: Read-only file system",
        "chmod 1",
        "\n77\n",
        " 4096 ",
    ):
        assert line in told, (line, told)
    assert "secret\n" not in told.replace("/secret", "")


def test_both_forms_of_capabilities_mean_the_same(host, bundle, tmp_path):
    (tmp_path / "out").mkdir()
    mounts = [
        {
            "destination": "/out",
            "type": "bind",
            "source": str(tmp_path / "out"),
            "options": ["rbind", "rw"],
        }
    ]
    sets = ("bounding", "effective", "inheritable", "permitted", "ambient")
    host.vc("pod", "create", "p")
    host.vc("pod", "start", "p")
    for name, capabilities in (
        ("list", ["CAP_CHOWN"]),
        ("object", {key: ["CAP_CHOWN"] for key in sets}),
    ):
        script = f"grep ^Cap /proc/self/status > /out/{name}"
        folder = bundle(
            name, "sh", "-c", script, process={"capabilities": capabilities}, mounts=mounts
        )
        host.vc("container", "create", "--bundle", str(folder), "--name", name, "p")
        host.vc("container", "start", "p", name)
        host.vc("container", "wait", "p", name)
    host.vc("pod", "delete", "p")
    assert (tmp_path / "out/list").read_text() == (tmp_path / "out/object").read_text()
    assert (tmp_path / "out/list").read_text().count("0000000000000001") == 5


def test_nodes_without_a_device_of_the_host_are_made_and_open_none(host, bundle, tmp_path):
    (tmp_path / "out").mkdir()
    out = {"destination": "/out", "type": "bind", "source": str(tmp_path / "out")}
    listed = [
        {"type": "p", "path": "/dev/pipe", "fileMode": 0o620, "uid": 1, "gid": 2},
        {"type": "b", "path": "/dev/block", "major": 250, "minor": 9, "fileMode": 0o600},
        {"type": "c", "path": "/dev/rtc9", "major": 249, "minor": 9},
    ]
    look = "stat -c '%F %a %u:%g %t:%T' /dev/pipe /dev/block /dev/rtc9"
    script = f"exec >/out/told 2>&1; {look}; head -c 1 /dev/block; head -c 1 /dev/rtc9"
    linux = {"devices": listed}
    _run(host, bundle("nodes", "sh", "-c", script, linux=linux, mounts=[out]))
    host.vc("pod", "delete", "c")
    *nodes, block, char = (tmp_path / "out/told").read_text().splitlines()
    assert nodes == [
        "fifo 620 1:2 0:0",
        "block special file 600 0:0 fa:9",
        "character special file 660 0:0 f9:9",
    ]
    for refused in (block, char):
        assert "Operation not permitted" in refused


def test_who_administers_the_network_makes_bridges(host, bundle):
    host.vc("pod", "create", "p")
    host.vc("pod", "start", "p")
    for name, capabilities, code in (("without", [], b"1\n"), ("with", ["CAP_NET_ADMIN"], b"0\n")):
        folder = bundle(
            name, "busybox", "brctl", "addbr", "b0", process={"capabilities": capabilities}
        )
        host.vc("container", "create", "--bundle", str(folder), "--name", name, "p")
        host.vc("container", "start", "p", name)
        assert host.vc("container", "wait", "p", name).stdout == code
    host.vc("pod", "delete", "p")


def test_bundles_that_engines_write_run(host, bundle, tmp_path):
    """As podman, docker, containerd and the kubelet write them, all in one pod."""
    (tmp_path / "out").mkdir()
    out = {
        "destination": "out",
        "type": "bind",
        "source": str(tmp_path / "out"),
        "options": ["rbind", "rprivate"],
    }
    cgroup = {**MOUNTS[-1], "options": ["rprivate", *PLAIN, "relatime", "ro"]}
    megabytes = 128 << 20
    member = [{"type": "mount"}, {"type": "cgroup"}, {"type": "pid"}]
    member += [
        {"type": kind, "path": f"/proc/1/ns/{name}"}
        for kind, name in (("ipc", "ipc"), ("uts", "uts"))
    ]
    resources = {
        "podman": {"memory": {"limit": megabytes, "swap": 2 * megabytes}, "pids": {"limit": 2048}},
        "docker": {
            "memory": {
                "limit": megabytes,
                "swap": -1,
                "kernel": -1,
                "kernelTCP": -1,
                "swappiness": 60,
            },
            "cpu": {"shares": 0},
            "blockIO": {"weight": 0},
            "devices": [
                {"allow": False, "access": "rwm"},
                {"allow": True, "type": "c", "major": 1, "minor": 5},
            ],
        },
        "kubelet": {
            "memory": {"limit": megabytes, "reservation": megabytes // 2},
            "hugepageLimits": [{"pageSize": "2MB", "limit": 0}],
            "unified": {"memory.oom.group": "1"},
        },
    }
    process = {
        "apparmorProfile": "containers-default-0.50.1",
        "user": {"uid": 0, "gid": 0, "umask": 18},
        "oomScoreAdj": 998,
        "rlimits": [{"type": "RLIMIT_CORE", "soft": (1 << 64) - 1, "hard": (1 << 64) - 1}],
    }
    files = "max swap.max low oom.group"
    host.vc("pod", "create", "p")
    host.vc("pod", "start", "p")
    for name, limits in resources.items():
        script = (
            f"for f in {files}; do cat /sys/fs/cgroup/memory.$f; done > /out/{name}; "
            f"umask >> /out/{name}"
        )
        script += f"; cat /proc/self/oom_score_adj >> /out/{name}; hostname >> /out/{name}"
        linux: dict[str, Any] = {"resources": limits, "cgroupsPath": f"system.slice:{name}:c"}
        if name == "kubelet":
            linux["namespaces"] = member
        folder = bundle(
            name,
            "sh",
            "-c",
            script,
            ociVersion="1.3.0",
            process=process,
            mounts=[cgroup, out],
            linux=linux,
        )
        told = host.vc(
            "container", "create", "--bundle", str(folder), "--name", name, "p"
        ).stderr.decode()
        assert "process.apparmorProfile: has no effect, as the guest has no AppArmor" in told
        host.vc("container", "start", "p", name)
        host.vc("container", "wait", "p", name)
    host.vc("pod", "delete", "p")
    told = {name: (tmp_path / "out" / name).read_text().split() for name in resources}
    assert told["podman"] == [str(megabytes), "0", "0", "0", "0022", "998", "bundled"]
    assert told["docker"] == [str(megabytes), "0", "0", "0", "0022", "998", "bundled"]
    assert told["kubelet"] == [str(megabytes), "0", str(megabytes // 2), "1", "0022", "998", "p"]


def test_a_sandbox_makes_a_pod_and_a_container_joins_it(host, bundle):
    cri = "io.kubernetes.cri"
    sandbox = bundle("sandbox", "sleep", "99", annotations={f"{cri}.container-type": "sandbox"})
    notes = {f"{cri}.container-type": "container", f"{cri}.sandbox-id": "box"}
    member = bundle("member", "sleep", "99", annotations=notes)
    told = host.vc(
        "container", "create", "--bundle", str(member), "--name", "early", check=125
    ).stderr
    assert b"no pod box" in told
    host.vc("container", "create", "--bundle", str(sandbox), "--name", "box")
    host.vc("container", "create", "--bundle", str(member), "--name", "member")
    host.vc("pod", "start", "box")
    found = json.loads(host.vc("pod", "status", "box", "--json").stdout)
    assert [(one["id"], one["state"]) for one in found["containers"]] == [
        ("box", "running"),
        ("member", "running"),
    ]
    state = json.loads(host.vc("container", "state", "box", "member").stdout)
    assert state == {
        "ociVersion": "1.0.2",
        "id": "member",
        "status": "running",
        "pid": found["pid"],
        "bundle": str(member),
        "annotations": notes,
    }
    host.vc("pod", "delete", "box")


@pytest.mark.only(*HYPERVISORS)
def test_a_kernel_of_its_own_is_booted_when_its_digest_is_right(host, bundle):
    kernel = GUESTS.parent / GUESTS.read_text().strip() / "vmlinux"
    digest = hashlib.sha512(kernel.read_bytes()).hexdigest()
    key = "com.github.containers.virtcontainers."
    good = bundle(
        "good", "true", annotations={f"{key}KernelPath": str(kernel), f"{key}KernelHash": digest}
    )
    told = host.vc(
        "container", "create", "--bundle", str(good), "--name", "c", check=125
    ).stderr.decode()
    assert "is not allowed; add it to pod.asset_paths" in told
    host.configure("pod", asset_paths=[f"{kernel.parent}/*"])
    _run(host, good)
    host.vc("pod", "delete", "c")
    bad = bundle(
        "bad", "true", annotations={f"{key}KernelPath": str(kernel), f"{key}KernelHash": "0" * 128}
    )
    told = host.vc(
        "container", "create", "--bundle", str(bad), "--name", "c", check=125
    ).stderr.decode()
    assert f"has the SHA-512 {digest}, and 000" in told
    assert host.vc("pod", "ls", "--json").stdout.strip() == b"[]"
