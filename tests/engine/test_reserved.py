"""A pod reserves the size of its containers before it has them: on mocks."""

from __future__ import annotations

import pytest

from tests.engine.specs import container
from vc_core import Start
from vc_core.engine.resources import vm_size
from vc_core.engine.state.records import PodConfig
from vc_core.spec import (
    Capability,
    InvalidRequest,
    PodOptions,
    Reserved,
    Resources,
    VmSize,
)

MIB = 1 << 20
OPTIONS = PodOptions(reserved=Reserved(vcpus=2, memory_bytes=64 * MIB))


@pytest.mark.parametrize(
    ("limits", "size"),
    [
        ([], VmSize(vcpus=2, memory_mib=320)),
        ([Resources(cpu_quota_us=100_000, memory_bytes=64 * MIB)], VmSize(vcpus=2, memory_mib=320)),
        ([Resources(memory_bytes=63 * MIB)] * 2, VmSize(vcpus=2, memory_mib=382)),
        ([Resources(cpu_quota_us=100_000)] * 3, VmSize(vcpus=3, memory_mib=320)),
    ],
)
def test_what_is_reserved_is_for_the_containers(limits, size):
    config = PodConfig("p", (), 1, 256, "p", 0, options=OPTIONS)
    assert vm_size.demand(config, limits) == size


async def test_a_machine_starts_with_what_is_reserved_and_keeps_it(runtime, world):
    async with runtime.pod("p", options=OPTIONS) as pod:
        assert world.machines["p"].size == VmSize(vcpus=2, memory_mib=320)
        assert (await pod.status()).size == VmSize(vcpus=2, memory_mib=320)
        limits = Resources(cpu_quota_us=200_000, memory_bytes=60 * MIB)
        one = await pod.create_container(container("a", resources=limits))
        assert "vm_resize" not in world.faults.calls
        await one.update(Resources(memory_bytes=100 * MIB))
        assert (await pod.status()).size == VmSize(vcpus=2, memory_mib=356)
        await one.delete()
        assert (await pod.status()).size == VmSize(vcpus=2, memory_mib=320)


async def test_a_clone_grows_once_and_not_for_each_container(runtime, world):
    for name in ("a", "b"):
        pod = await runtime.create(name, options=OPTIONS, start=Start.TEMPLATE)
        await pod.start()
        assert world.machines[name].is_clone
        assert world.machines[name].size == VmSize(vcpus=2, memory_mib=320)
        grown = world.faults.calls.count("vm_resize")
        for container_id in ("c", "d"):
            limits = Resources(memory_bytes=32 * MIB)
            await pod.create_container(container(container_id, resources=limits))
        assert world.faults.calls.count("vm_resize") == grown


async def test_a_machine_that_cannot_grow_has_it_also(open_runtime, world):
    world.capabilities = frozenset(
        {Capability.UNIX_CHANNEL, Capability.SHARE, Capability.SHARE_PLUG}
    )
    async with open_runtime() as runtime, runtime.pod("p", options=OPTIONS) as pod:
        await pod.create_container(container("a", resources=Resources(memory_bytes=64 * MIB)))
        assert world.machines["p"].size == VmSize(vcpus=2, memory_mib=320)


async def test_what_is_negative_is_refused(runtime):
    for reserved in (Reserved(vcpus=-1), Reserved(memory_bytes=-1)):
        with pytest.raises(InvalidRequest, match="must not be negative"):
            await runtime.create("p", options=PodOptions(reserved=reserved))
