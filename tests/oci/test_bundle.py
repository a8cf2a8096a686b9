"""What a bundle's config.json becomes, and what is refused by name."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest

from vc_core import oci
from vc_core.engine.state.states import State
from vc_core.oci.annotations import ContainerType
from vc_core.spec import ConfigError, InvalidRequest, MountKind, RootfsMode


def config(**changes: Any) -> dict[str, Any]:
    base = {
        "ociVersion": "1.0.2",
        "process": {"args": ["sh"], "cwd": "/"},
        "root": {"path": "rootfs"},
    }
    return {**base, **changes}


def write(folder: Path, document: object) -> Path:
    (folder / "config.json").write_text(json.dumps(document))
    return folder


def load(folder: Path, **changes: Any):
    return oci.load(write(folder, config(**changes)), "c")


def test_the_least_that_a_bundle_can_be(tmp_path):
    found = load(tmp_path)
    spec = found.container
    assert (spec.rootfs.path, spec.rootfs.mode) == (tmp_path / "rootfs", RootfsMode.READ_WRITE)
    assert (spec.process.args, spec.process.user, spec.process.no_new_privileges) == (
        ("sh",),
        "0:0",
        False,
    )
    assert spec.process.capabilities.effective == ()
    assert not spec.has_default_mounts
    assert (found.kind, found.sandbox_id) == (ContainerType.SANDBOX, "")
    assert load(tmp_path, root={"path": "/abs", "readonly": True}).container.rootfs.path == Path(
        "/abs"
    )


def test_the_environment_is_kept_word_for_word(tmp_path):
    env = ["A=b=c", "EMPTY=", "NOEQUALS", "Q='x'"]
    assert load(tmp_path, process={"args": ["x"], "env": env}).container.process.env == tuple(env)


def test_a_negative_quota_is_no_limit(tmp_path):
    limits = {
        "cpu": {"quota": -1, "period": 100_000, "shares": 2},
        "memory": {"limit": -1, "swap": -1},
        "pids": {"limit": -1},
    }
    found = load(tmp_path, linux={"resources": limits}).container.resources
    assert (found.cpus, found.memory_bytes, found.pids, found.cpu_shares) == (0, 0, 0, 2)


def test_mounts_by_type_and_options(tmp_path):
    mounts = [
        {"destination": "/proc", "type": "proc", "source": "proc"},
        {"destination": "/t", "type": "tmpfs", "source": "t", "options": ["size=1m", "ro"]},
        {"destination": "/rel", "source": "data", "options": ["bind"]},
        {"destination": "/abs", "type": "rbind", "source": "/etc", "options": ["ro"]},
        {"destination": "/none", "type": "none", "source": "/etc", "options": ["rbind", "noexec"]},
        {"destination": "/below", "type": "bind", "source": "/etc", "options": ["rbind", "rro"]},
    ]
    found = load(tmp_path, mounts=mounts).container.mounts
    assert [one.kind for one in found] == [MountKind.PROC, MountKind.TMPFS, *[MountKind.BIND] * 4]
    assert (found[1].read_only, found[1].options) == (True, ("size=1m",))
    assert (found[2].source, found[2].recursive) == (tmp_path / "data", False)
    assert (found[3].read_only, found[3].recursive) == (True, True)
    assert (found[4].options, found[4].recursive) == (("noexec",), True)
    assert (found[5].read_only, found[5].options) == (True, ())


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"ociVersion": "2.0"}, "ociVersion: '2.0' is not supported"),
        ({"process": {"args": []}}, "process.args: must not be empty"),
        (
            {"process": {"args": ["x"], "ioPriority": {"class": "IOPRIO_CLASS_RT"}}},
            "process.ioPriority: not supported",
        ),
        ({"process": {"args": "x"}}, "process.args: must be a list"),
        ({"process": {"args": ["x"], "cwd": "here"}}, "process.cwd: must be an absolute path"),
        ({"linux": {"intelRdt": {"closID": "x"}}}, "linux.intelRdt: not supported; remove it"),
        ({"linux": {"uidMappings": [{"size": 1}]}}, "linux.uidMappings: not supported; remove it"),
        (
            {"linux": {"personality": {"domain": "LINUX32"}}},
            "linux.personality.domain: must be LINUX",
        ),
        (
            {"linux": {"namespaces": [{"type": "user"}]}},
            "linux.namespaces[0].type: the namespace 'user'",
        ),
        (
            {"linux": {"namespaces": [{"type": "time"}], "timeOffsets": {"boottime": {"secs": 1}}}},
            "linux.timeOffsets: not supported",
        ),
        (
            {"linux": {"resources": {"blockIO": {"weight": 9}}}},
            "linux.resources.blockIO: not supported; remove it",
        ),
        (
            {"linux": {"resources": {"rdma": {"mlx5": {"hcaHandles": 3}}}}},
            "linux.resources.rdma: not supported; remove it",
        ),
        (
            {"linux": {"resources": {"memory": {"swappiness": 101}}}},
            "linux.resources.memory.swappiness: must be from",
        ),
        (
            {"linux": {"resources": {"memory": {"limit": 9, "swap": 8}}}},
            "resources.memory.swap: must be at least memory.limit",
        ),
        (
            {"linux": {"resources": {"memory": {"swap": 8}}}},
            "linux.resources.memory.swap: needs memory.limit",
        ),
        (
            {"linux": {"resources": {"memory": {"disableOOMKiller": True}}}},
            "memory.disableOOMKiller: not supported",
        ),
        (
            {"linux": {"resources": {"unified": {"memory.oom.group": 1}}}},
            "unified: must be an object of strings",
        ),
        (
            {"linux": {"resources": {"cpu": {"mems": "1"}}}},
            "linux.resources.cpu.mems: must be 0",
        ),
        (
            {"linux": {"resources": {"cpu": {"realtimePeriod": 9}}}},
            "linux.resources.cpu.realtimePeriod: not supported",
        ),
        (
            {"linux": {"resources": {"devices": [{"allow": True, "type": "b"}]}}},
            "linux.resources.devices[0]: must name a single device",
        ),
        (
            {"linux": {"devices": [{"type": "x", "path": "/f"}]}},
            "linux.devices[0].type: 'x' is not supported",
        ),
        ({"linux": {"devices": [{"type": "c"}]}}, "linux.devices[0].path: is missing"),
        (
            {"mounts": [{"destination": "/x", "type": "nfs", "source": "h:/"}]},
            "mounts[0].type: 'nfs' is not supported",
        ),
        (
            {
                "mounts": [
                    {
                        "destination": "/x",
                        "type": "bind",
                        "source": "/",
                        "uidMappings": [{"size": 1}],
                    }
                ]
            },
            "mounts[0].uidMappings",
        ),
        (
            {"hooks": {"createContainer": [{"path": "/x", "timeout": "1"}]}},
            "hooks.createContainer[0].timeout: must be",
        ),
        (
            {"hooks": {"prestart": [{"path": "x"}]}},
            "hooks.prestart[0].path: must be an absolute path",
        ),
        ({"domainname": "d"}, "domainname: not supported; remove it"),
        (
            {"annotations": {"org.opencontainers.image.stopSignal": "SIGX"}},
            "stopSignal: there is no signal 'SIGX'",
        ),
        ({"windows": {"x": 1}}, "windows: not supported; remove it"),
        (
            {"annotations": {"io.kubernetes.cri.container-type": "odd"}},
            "'odd' is not a container type",
        ),
        (
            {"annotations": {"io.katacontainers.config.hypervisor.firmware": "/f"}},
            "firmware: not supported; remove it",
        ),
        (
            {"annotations": {"com.github.containers.virtcontainers.AssetHashType": "md5"}},
            "'md5' is not supported; use sha512",
        ),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_name(tmp_path, changes, told):
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, **changes)
    assert any(told in problem for problem in caught.value.problems), caught.value.problems
    assert all(problem.startswith(f"{tmp_path}/config.json: ") for problem in caught.value.problems)


def test_all_problems_are_told_at_once_and_empty_values_are_none(tmp_path):
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, process={"args": ["x"], "commandLine": "p"}, domainname="d", hostname=7)
    assert len(caught.value.problems) == 3
    load(
        tmp_path,
        linux={
            "resources": {"blockIO": {}, "memory": {"disableOOMKiller": False}},
            "intelRdt": None,
        },
    )


def test_versions_of_the_specification(tmp_path):
    for version in ("1.0.0", "1.0.2-dev", "1.1.0", "1.2.1", "1.3.0"):
        load(tmp_path, ociVersion=version)


def test_limits_that_engines_write_and_a_guest_keeps(tmp_path, caplog):
    memory = {
        "limit": 128 << 20,
        "swap": 256 << 20,
        "reservation": 64 << 20,
        "swappiness": 60,
        "kernel": -1,
    }
    limits = {
        "memory": {**memory, "kernelTCP": -1, "disableOOMKiller": False, "useHierarchy": True},
        "cpu": {"shares": 0, "realtimeRuntime": 0, "mems": ""},
        "pids": {"limit": 0},
        "blockIO": {"weight": 0, "weightDevice": [], "throttleReadBpsDevice": None},
        "hugepageLimits": [{"pageSize": "2MB", "limit": 0}],
        "unified": {"memory.oom.group": "1"},
        "network": {"classID": 0, "priorities": []},
        "devices": [
            {"allow": False, "access": "rwm", "major": -1, "minor": -1},
            {"allow": True, "type": "c", "major": -1, "minor": -1, "access": "m"},
            {"allow": True, "type": "c", "major": 1, "minor": 5, "access": "rwm"},
        ],
    }
    found = load(
        tmp_path, linux={"resources": limits, "personality": {"domain": "LINUX"}}
    ).container.resources
    assert (found.memory_bytes, found.pids, found.cpu_shares) == (128 << 20, 0, 0)
    assert dict(found.unified) == {"memory.oom.group": "1", "memory.low": str(64 << 20)}
    assert caplog.text == ""
    more = {"memory": {"kernel": 8}, "hugepageLimits": [{"pageSize": "2MB", "limit": 8}]}
    load(tmp_path, linux={"resources": more})
    assert (
        "memory.kernel: has no effect, as kernel memory counts against memory.limit" in caplog.text
    )
    assert "hugepageLimits[0]: has no effect, as the guest has no huge pages" in caplog.text


def test_security_modules_of_the_host_are_warned_about(tmp_path, caplog):
    process = {
        "args": ["x"],
        "apparmorProfile": "docker-default",
        "selinuxLabel": "system_u:system_r:container_t:s0",
    }
    load(tmp_path, process=process, linux={"mountLabel": "system_u:object_r:container_file_t:s0"})
    for place in (
        "process.apparmorProfile: has no effect, as the guest has no App",
        "process.selinuxLabel:",
        "linux.mountLabel:",
    ):
        assert place in caplog.text
    caplog.clear()
    load(tmp_path, process={"args": ["x"], "apparmorProfile": "unconfined"})
    assert caplog.text == ""


@pytest.mark.parametrize(
    ("text", "meant"),
    [("data", "/data"), ("./a//b/", "/a/b"), ("../../x", "/x"), ("/a/../b", "/b"), ("/t", "/t")],
)
def test_relative_destinations_are_below_the_root(tmp_path, text, meant):
    mounts = [{"destination": text, "type": "tmpfs", "source": "t"}]
    assert load(tmp_path, mounts=mounts).container.mounts[0].destination == meant


def test_the_images_stop_signal_comes_as_an_annotation(tmp_path):
    key = "org.opencontainers.image.stopSignal"
    assert load(tmp_path, annotations={key: "10"}).container.stop_signal == signal.SIGUSR1
    assert load(tmp_path, annotations={key: "SIGQUIT"}).container.stop_signal == signal.SIGQUIT
    assert load(tmp_path).container.stop_signal == signal.SIGTERM


def test_paths_of_namespaces_are_told_and_not_joined(tmp_path):
    kinds = [
        {"type": kind, "path": f"/proc/7/ns/{kind}"} for kind in ("network", "pid", "ipc", "uts")
    ]
    own = [{"type": "mount"}, {"type": "time"}]
    found = load(tmp_path, linux={"namespaces": [*kinds, *own]})
    assert found.container.confinement.namespaces == ("network", "pid", "mount")
    assert found.joined == {one["type"]: one["path"] for one in kinds}


@pytest.mark.parametrize(
    ("notes", "kind", "sandbox"),
    [
        (
            {"io.kubernetes.cri.container-type": "container", "io.kubernetes.cri.sandbox-id": "s"},
            "container",
            "s",
        ),
        (
            {
                "io.kubernetes.cri-o.ContainerType": "container",
                "io.kubernetes.cri-o.SandboxID": "s",
            },
            "container",
            "s",
        ),
        (
            {"io.kubernetes.docker.type": "container", "io.kubernetes.sandbox.id": "s"},
            "container",
            "s",
        ),
        ({"io.kubernetes.docker.type": "podsandbox"}, "sandbox", ""),
        ({"io.kubernetes.cri-o.ContainerType": "sandbox"}, "sandbox", ""),
        ({}, "sandbox", ""),
    ],
)
def test_annotations_of_the_cri_families(tmp_path, notes, kind, sandbox):
    found = load(tmp_path, annotations=notes)
    assert (found.kind.value, found.sandbox_id) == (kind, sandbox)


@pytest.mark.parametrize("content", ["", "{", "[]", '"x"'])
def test_a_file_that_is_none_is_an_error_of_one_line(tmp_path, content):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises((InvalidRequest, ConfigError)) as caught:
        oci.load(tmp_path, "c")
    assert "\n" not in str(caught.value)


async def test_a_state_is_the_runtime_specs(runtime, tmp_path):
    (tmp_path / "rootfs").mkdir()
    one = await oci.create(runtime, write(tmp_path, config(annotations={"k": "v"})), "c")
    assert oci.state(await one.status(), 5) == {
        "ociVersion": "1.0.2",
        "id": "c",
        "status": "created",
        "pid": 5,
        "bundle": str(tmp_path),
        "annotations": {"k": "v"},
    }
    await (await runtime.get("c")).start()
    assert oci.state(await one.status(), 5)["status"] == "running"
    await one.stop()
    assert (await one.status()).state is State.STOPPED
    assert (
        oci.state(await one.status(), 5)["status"],
        oci.state(await one.status(), 5)["pid"],
    ) == ("stopped", 0)


async def test_namespaces_of_the_host_are_said_not_to_be_joined(runtime, tmp_path, caplog):
    (tmp_path / "rootfs").mkdir()
    kinds = [{"type": kind, "path": f"/proc/7/ns/{kind}"} for kind in ("network", "pid")]
    await oci.create(runtime, write(tmp_path, config(linux={"namespaces": kinds})), "c")
    assert "/proc/7/ns/network is not joined" in caplog.text
    assert "/proc/7/ns/pid is not joined" in caplog.text


async def test_a_bundle_that_cannot_be_made_leaves_no_pod(runtime, world, tmp_path):
    with pytest.raises(InvalidRequest, match="is not a directory, image or block device"):
        await oci.create(runtime, write(tmp_path, config()), "c")
    assert world.records == {}
    notes = {"io.kubernetes.cri.container-type": "container"}
    with pytest.raises(InvalidRequest, match="without a sandbox id"):
        await oci.create(runtime, write(tmp_path, config(annotations=notes)), "c")
