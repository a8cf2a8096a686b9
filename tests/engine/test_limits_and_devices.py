"""Limits size the machine, devices come and go, hooks are run: on mocks."""

from __future__ import annotations

import json
import os
import resource
from fractions import Fraction
from pathlib import Path

import pytest
from msgspec import structs

from tests.engine.specs import container
from vc_core.driver_kit import mountinfo
from vc_core.engine.resources import vm_size
from vc_core.engine.state.records import PodConfig
from vc_core.engine.state.states import State
from vc_core.spec import (
    Capability,
    DeviceError,
    HealthCheck,
    HookError,
    HostDevice,
    HypervisorError,
    InvalidRequest,
    Mount,
    OciHook,
    OciHooks,
    OperationError,
    Resources,
    Restart,
    RestartPolicy,
    VmSize,
)

MIB = 1 << 20
CONFIG = PodConfig("p", (), 1, 256, "p", 0)


@pytest.mark.parametrize(
    ("limits", "size"),
    [
        ([], VmSize(vcpus=1, memory_mib=256)),
        ([Resources(cpu_quota_us=-1)], VmSize(vcpus=1, memory_mib=256)),
        ([Resources(cpu_quota_us=-1000, cpu_period_us=1000)], VmSize(vcpus=1, memory_mib=256)),
        ([Resources(cpu_quota_us=100_000)], VmSize(vcpus=1, memory_mib=256)),
        ([Resources(cpu_quota_us=100_001)], VmSize(vcpus=2, memory_mib=256)),
        ([Resources(cpu_quota_us=50_000)] * 3, VmSize(vcpus=2, memory_mib=256)),
        ([Resources(cpuset="0")], VmSize(vcpus=1, memory_mib=256)),
        ([Resources(cpuset="0-1,3"), Resources(cpuset="2")], VmSize(vcpus=4, memory_mib=256)),
        ([Resources(memory_bytes=1)], VmSize(vcpus=1, memory_mib=257)),
        (
            [Resources(memory_bytes=64 * MIB), Resources(memory_bytes=32 * MIB)],
            VmSize(vcpus=1, memory_mib=352),
        ),
    ],
)
def test_limits_decide_the_size_and_negative_ones_are_none(limits, size):
    assert vm_size.demand(CONFIG, limits) == size


def test_a_quota_is_a_share_of_processors():
    assert Resources(cpu_quota_us=150_000).cpus == Fraction(3, 2)
    assert Resources(cpu_quota_us=-5).cpus == 0


@pytest.mark.parametrize(
    ("limits", "told"),
    [
        (Resources(cpu_quota_us=1, cpu_period_us=100_000), "CPU quota of 1"),
        (Resources(cpu_period_us=1), "cpu_period_us is 1"),
        (Resources(cpu_shares=1), "cpu_shares is 1"),
        (Resources(memory_bytes=20), "4 MiB is the least"),
        (Resources(memory_bytes=-1), "4 MiB is the least"),
        (Resources(pids=-1), "pids is -1"),
        (Resources(unified=(("../x", "1"),)), "'../x' is not a limit of a cgroup"),
        (Resources(unified=(("cgroup.procs", "1"),)), "'cgroup.procs' is not a limit of a cgroup"),
        (Resources(cpuset="0-"), "'0-' is not a list of CPUs"),
        (Resources(cpuset="a"), "'a' is not a list of CPUs"),
    ],
)
async def test_limits_that_no_kernel_takes_are_refused(runtime, limits, told):
    pod = await runtime.create("p")
    with pytest.raises(InvalidRequest, match=told):
        await pod.create_container(container("a", resources=limits))


def test_an_update_has_room_for_what_was_and_for_what_will_be():
    one = Resources(cpu_quota_us=300_000, cpuset="0", memory_bytes=5 * MIB)
    other = Resources(cpu_quota_us=100_000, cpuset="0-2", memory_bytes=9 * MIB)
    both = Resources(cpu_quota_us=300_000, cpuset="0-2", memory_bytes=9 * MIB)
    assert vm_size.larger(one, other) == vm_size.larger(other, one) == both


async def test_the_machine_grows_and_shrinks_with_its_containers(runtime, world):
    async with runtime.pod("p") as pod:
        one = await pod.create_container(container("a", resources=Resources(cpu_quota_us=200_000)))
        assert world.machines["p"].size == VmSize(vcpus=2, memory_mib=256)
        two = await pod.create_container(container("b", resources=Resources(memory_bytes=64 * MIB)))
        assert (await pod.status()).size == VmSize(vcpus=2, memory_mib=320)
        await one.start()
        await one.update(Resources(cpu_quota_us=350_000))
        assert world.machines["p"].size == VmSize(vcpus=4, memory_mib=320)
        assert world.machines["p"].containers["a"].resources == Resources(cpu_quota_us=350_000)
        with pytest.raises(OperationError, match="5 vCPUs are too many"):
            await one.update(Resources(cpu_quota_us=500_000))
        assert (await one.status()).spec.resources == Resources(cpu_quota_us=350_000)
        await one.stop()
        assert world.machines["p"].size == VmSize(vcpus=1, memory_mib=320)
        await two.delete()
        assert (await pod.status()).size == VmSize(vcpus=1, memory_mib=256)


async def test_a_machine_that_cannot_grow_refuses_what_needs_it(open_runtime, world):
    world.capabilities = frozenset(
        {Capability.UNIX_CHANNEL, Capability.SHARE, Capability.SHARE_PLUG}
    )
    async with open_runtime() as runtime, runtime.pod("p", vcpus=2) as pod:
        with pytest.raises(
            InvalidRequest, match="3 vCPUs and 256 MiB are needed and the machine cannot grow"
        ):
            await pod.create_container(container("a", resources=Resources(cpu_quota_us=300_000)))
        await pod.create_container(container("b", resources=Resources(cpu_quota_us=200_000)))


@pytest.mark.parametrize(
    "asked",
    [{"restart": Restart(policy=RestartPolicy.ALWAYS)}, {"health": HealthCheck(args=("true",))}],
)
async def test_an_agent_that_takes_no_care_refuses_what_needs_it(open_runtime, world, asked):
    async with open_runtime() as runtime, runtime.pod("p") as pod:
        with pytest.raises(
            InvalidRequest, match="neither starts container a again nor checks its health"
        ):
            await pod.create_container(container("a", **asked))
        assert world.machines["p"].containers == {}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can bind")
async def test_where_no_folder_can_be_plugged_root_binds_what_comes_later(
    open_runtime, world, tmp_path
):
    world.capabilities = frozenset({Capability.UNIX_CHANNEL, Capability.SHARE})
    (tmp_path / "later").mkdir()
    (tmp_path / "later/it").touch()
    async with open_runtime() as runtime, runtime.pod("p") as pod:
        await pod.create_container(container("a", rootfs=str(tmp_path / "later")))
        (share,) = world.machines["p"].shares.values()
        made = world.machines["p"].containers["a"].made
        assert (made.rootfs.plugged.address, made.rootfs.subpath) == (
            share.tag,
            made.rootfs.subpath,
        )
        assert (share.path / made.rootfs.subpath / "it").exists()
        await pod.container("a").delete()
        assert list(share.path.iterdir()) == []
    assert world.residue() == []


async def test_a_device_is_shared_by_containers_and_given_back_after_the_last(
    runtime, world, tmp_path
):
    (tmp_path / "x.dev").touch()
    device = HostDevice(path=tmp_path / "x.dev", destination="/dev/x")
    async with runtime.pod("p") as pod:
        for name, mode in (("a", 0o600), ("b", 0o644)):
            other = HostDevice(path=device.path, destination=f"/dev/{name}", mode=mode)
            await pod.create_container(container(name, devices=(other,)))
        assert list(world.machines["p"].devices) == ["drive-x.dev"]
        made = world.machines["p"].containers["b"].made.devices[0]
        assert (made.device.destination, made.device.mode) == ("/dev/b", 0o644)
        await pod.container("a").delete()
        assert world.prepared == {device.path}
        await pod.container("b").delete()
        assert (world.prepared, world.machines["p"].devices) == (set(), {})


async def test_devices_and_mounts_are_given_back_when_the_machine_dies(runtime, world, tmp_path):
    (tmp_path / "x.dev").touch()
    (tmp_path / "data").mkdir()
    pod = await runtime.create("p")
    mounts, devices = (
        (Mount(source=tmp_path / "data", destination="/data"),),
        (HostDevice(path=tmp_path / "x.dev", destination="/dev/x"),),
    )
    await pod.create_container(container("a", mounts=mounts, devices=devices))
    await pod.start()
    world.machines["p"].end("killed")
    assert (await pod.status()).state is State.STOPPED
    await pod.start()
    assert world.prepared == {tmp_path / "x.dev"}
    expected = 4 if os.geteuid() == 0 else 0
    assert len(mountinfo.below(world.run_root)) == expected, "two places, and one bind in each"
    world.machines["p"].end("killed")
    await pod.stop()
    await pod.close()
    assert world.residue() == []


async def test_devices_that_cannot_be_are_refused_and_nothing_is_left(runtime, world, tmp_path):
    for name in ("x.dev", "x.refused", "x.other"):
        (tmp_path / name).touch()
    good = HostDevice(path=tmp_path / "x.dev", destination="/dev/x")
    async with runtime.pod("p") as pod:
        for bad, told in (
            ("x.refused", "refused"),
            ("x.other", "no device plugin claims .* add one to use.devices"),
        ):
            with pytest.raises(DeviceError, match=told):
                await pod.create_container(
                    container(
                        "a", devices=(good, HostDevice(path=tmp_path / bad, destination="/dev/y"))
                    )
                )
            assert (world.prepared, world.machines["p"].devices) == (set(), {})
        for device in (
            HostDevice(path=tmp_path / "no", destination="/x"),
            HostDevice(path=Path("x"), destination="/x"),
            HostDevice(path=good.path, destination="x"),
        ):
            with pytest.raises(InvalidRequest):
                await pod.create_container(container("a", devices=(device,)))
        assert (await pod.status()).containers == ()


def _hook(tmp_path: Path, name: str, script: str = "") -> OciHook:
    path = tmp_path / name
    path.write_text(f"#!/bin/sh\ncat > {tmp_path}/{name}.json\n{script}\n")
    path.chmod(0o755)
    return OciHook(path=path, env=("PATH=/usr/bin:/bin",))


async def test_poststop_is_told_when_the_machine_dies_and_its_failure_is_a_warning(
    runtime, world, tmp_path, caplog
):
    hooks = OciHooks(
        poststart=(_hook(tmp_path, "on", "exit 7"),), poststop=(_hook(tmp_path, "off", "exit 8"),)
    )
    pod = await runtime.create("p")
    one = await pod.create_container(container("a", hooks=hooks))
    await pod.start()
    assert "ended with 7" in caplog.text
    world.machines["p"].end("killed")
    with pytest.raises(Exception, match="stopped"):
        await one.kill(9)
    await pod.stop()
    assert json.loads((tmp_path / "off.json").read_text())["status"] == "stopped"
    assert "ended with 8" in caplog.text
    (tmp_path / "off.json").unlink()
    await pod.delete()
    assert not (tmp_path / "off.json").exists(), "told once"


async def test_a_hook_that_cannot_be_run_is_told(runtime, tmp_path):
    hooks = OciHooks(prestart=(OciHook(path=tmp_path / "absent"),))
    async with runtime.pod("p") as pod:
        one = await pod.create_container(container("a", hooks=hooks))
        with pytest.raises(HookError, match="absent cannot be run: No such file"):
            await one.start()
        assert (await one.status()).state is State.READY


async def test_hooks_of_the_creation_run_in_their_order_and_stop_the_start(runtime, tmp_path):
    note = f"echo $(basename $0) >> {tmp_path}/order"
    hooks = OciHooks(
        prestart=(_hook(tmp_path, "first", note),),
        create_container=(_hook(tmp_path, "second", note), _hook(tmp_path, "bad", "exit 5")),
        poststart=(_hook(tmp_path, "third", note),),
    )
    async with runtime.pod("p") as pod:
        one = await pod.create_container(container("a", hooks=hooks))
        with pytest.raises(HookError, match="bad ended with 5"):
            await one.start()
        assert (await one.status()).state is State.READY
    assert (tmp_path / "order").read_text() == "first\nsecond\n"
    assert json.loads((tmp_path / "bad.json").read_text())["status"] == "created"


async def test_an_agent_that_runs_no_hooks_gets_none(runtime, tmp_path):
    hooks = OciHooks(start_container=(OciHook(path=Path("/bin/true")),))
    async with runtime.pod("p") as pod:
        with pytest.raises(InvalidRequest, match="runs no startContainer hooks, which container a"):
            await pod.create_container(container("a", hooks=hooks))
        assert (await pod.status()).containers == ()


async def test_annotations_are_changed_and_kept(open_runtime):
    async with open_runtime() as runtime:
        pod = await runtime.create("p", annotations={"a": "1", "b": "2"})
        one = await pod.create_container(container("c"))
        assert await pod.annotate({"b": None, "c": ""}) == {"a": "1", "c": ""}
        assert await one.annotate({"x": "y"}) == {"x": "y"}
    async with open_runtime() as runtime:
        pod = await runtime.get("p")
        assert await pod.annotations() == {"a": "1", "c": ""}
        assert await pod.container("c").annotations() == {"x": "y"}
        with pytest.raises(InvalidRequest, match="needs a name"):
            await pod.annotate({"": "x"})


@pytest.mark.parametrize("name", ["a b", "x" * 65, "x" * 200, "-x", "a/b", "ä", "a\nb"])
async def test_a_host_name_that_cannot_be_is_refused_before_anything_is_made(runtime, name):
    with pytest.raises(InvalidRequest, match="is not a host name; use 1 to 64 letters"):
        await runtime.create("p", hostname=name)
    pod = await runtime.create("p", hostname="good-name.example_1")
    with pytest.raises(InvalidRequest, match="is not a host name"):
        await pod.create_container(structs.replace(container("c"), hostname=name))
    assert (await pod.status()).containers == ()


async def test_too_low_a_limit_of_open_files_is_told_before_anything_starts(
    runtime, world, monkeypatch, caplog
):
    pod = await runtime.create("p")
    monkeypatch.setattr(resource, "getrlimit", lambda _: (64, 64))
    with pytest.raises(
        InvalidRequest, match=r"only 64 files may be open at once here.*'ulimit -n 256'"
    ):
        await pod.start()
    assert (world.machines, caplog.text) == ({}, "")


async def test_a_machine_that_could_not_grow_as_wanted_is_refused_before_one_starts(
    runtime, world, caplog
):
    """The hypervisor is asked for the size that the limits of all containers add up to."""
    pod = await runtime.create("p")
    await pod.create_container(container("c", resources=Resources(cpu_quota_us=9_900_000)))
    with pytest.raises(HypervisorError, match="99 vCPUs are too many"):
        await pod.start()
    assert (world.machines, caplog.text) == ({}, "")
