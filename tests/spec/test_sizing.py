"""The steps of a resize, on a machine of numbers: what is plugged, what is given back, what is
undone.
"""

from __future__ import annotations

import pytest

from vc_core.driver_kit import ResizableMachine, resize
from vc_core.spec import HypervisorError, VmSize

START = VmSize(vcpus=1, memory_mib=256)


class Numbers(ResizableMachine):
    """Grows to 4 vCPUs and 1024 MiB in 4 modules; keeps the modules that it is told to keep."""

    def __init__(self, kept: tuple[int, ...] = (), keeps_vcpus: bool = False) -> None:
        self.count = START.vcpus
        self.modules: dict[int, int] = {}
        self._kept = kept
        self._keeps_vcpus = keeps_vcpus

    async def vcpus(self) -> int:
        return self.count

    async def add_vcpus(self, total: int) -> None:
        if total > 4:
            raise HypervisorError("no place for so many vCPUs")
        self.count = total

    async def remove_vcpus(self, total: int) -> None:
        if self._keeps_vcpus:
            raise HypervisorError("the guest refuses")
        self.count = total

    async def memory_modules(self) -> dict[int, int]:
        return dict(self.modules)

    async def add_memory_module(self, number: int, size_mib: int) -> None:
        if START.memory_mib + sum(self.modules.values()) + size_mib > 1024:
            raise HypervisorError("no place for so much memory")
        assert number not in self.modules
        self.modules[number] = size_mib

    async def remove_memory_module(self, number: int) -> None:
        if number in self._kept:
            raise HypervisorError("the guest refuses")
        del self.modules[number]


async def test_a_machine_grows_by_whole_blocks_of_memory():
    machine = Numbers()
    assert await resize(machine, START, VmSize(vcpus=3, memory_mib=300), True) == VmSize(
        vcpus=3, memory_mib=384
    )
    assert machine.modules == {0: 128}
    assert await resize(machine, START, VmSize(vcpus=3, memory_mib=640), True) == VmSize(
        vcpus=3, memory_mib=640
    )
    assert machine.modules == {0: 128, 1: 256}


async def test_a_machine_shrinks_to_its_start_and_numbers_are_used_again():
    machine = Numbers()
    for memory_mib in (384, 768):
        await resize(machine, START, VmSize(vcpus=4, memory_mib=memory_mib), True)
    assert await resize(machine, START, VmSize(vcpus=2, memory_mib=500), True) == VmSize(
        vcpus=2, memory_mib=640
    )
    assert await resize(machine, START, VmSize(vcpus=0, memory_mib=0), True) == START
    await resize(machine, START, VmSize(vcpus=1, memory_mib=384), True)
    assert machine.modules == {0: 128}


async def test_what_the_guest_keeps_stays_and_is_counted():
    machine = Numbers(kept=(0,), keeps_vcpus=True)
    for memory_mib in (512, 640):
        await resize(machine, START, VmSize(vcpus=2, memory_mib=memory_mib), True)
    assert await resize(machine, START, START, True) == VmSize(vcpus=2, memory_mib=512)
    assert machine.modules == {0: 256}


@pytest.mark.parametrize("can_unplug_vcpus", [True, False])
async def test_a_machine_that_cannot_grow_is_as_before(can_unplug_vcpus):
    machine = Numbers()
    with pytest.raises(HypervisorError, match="so much memory"):
        await resize(machine, START, VmSize(vcpus=2, memory_mib=2048), can_unplug_vcpus)
    assert machine.modules == {}
    assert machine.count == (1 if can_unplug_vcpus else 2)
    with pytest.raises(HypervisorError, match="so many vCPUs"):
        await resize(machine, START, VmSize(vcpus=5, memory_mib=512), can_unplug_vcpus)
    assert machine.modules == {}


async def test_vcpus_that_cannot_be_unplugged_are_left_alone():
    machine = Numbers()
    await resize(machine, START, VmSize(vcpus=3, memory_mib=256), False)
    assert await resize(machine, START, START, False) == VmSize(vcpus=3, memory_mib=256)
