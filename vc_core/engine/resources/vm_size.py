"""Computes the size of a pod's machine from the limits of its containers."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

from msgspec import structs

from vc_core.engine.state.records import PodConfig
from vc_core.spec.errors import InvalidRequest
from vc_core.spec.values import Capability, Resources, VmSize

if TYPE_CHECKING:  # lists know the sizes of pods without opening sessions
    from vc_core.engine.session.session import Session

_MIB = 1 << 20
_NEEDED = {Capability.RESIZE, Capability.ONLINE}
_SMALLEST_MEMORY = 4 * _MIB  # with less, crun fails to start a process
_PERIODS_US = range(1_000, 1_000_001)  # the kernel's range: Documentation/scheduler/sched-bwc.rst
_SMALLEST_QUOTA_US = 1_000
_SHARES = range(2, 262_145)
_CGROUP_FILE = r"[a-z]+(\.[a-z0-9_]+)+"
_FREEZER = "cgroup.freeze"
_CPUSET = r"(\d+(-\d+)?(,\d+(-\d+)?)*)?"


def check(resources: Resources) -> None:
    """Refuses limits that the kernel does not accept.

    Raises:
        InvalidRequest: naming the limit and its range.
    """
    if resources.cpu_period_us not in _PERIODS_US:
        raise InvalidRequest(
            f"cpu_period_us is {resources.cpu_period_us}; it must be 1000 to 1000000"
        )
    if 0 < resources.cpu_quota_us < _SMALLEST_QUOTA_US:
        raise InvalidRequest(
            f"a CPU quota of {resources.cpu_quota_us} µs is too little; 1000 is the least"
        )
    if resources.cpu_shares and resources.cpu_shares not in _SHARES:
        raise InvalidRequest(f"cpu_shares is {resources.cpu_shares}; it must be 2 to 262144")
    if resources.memory_bytes < 0 or 0 < resources.memory_bytes < _SMALLEST_MEMORY:
        raise InvalidRequest(
            f"a memory limit of {resources.memory_bytes} bytes is too little; 4 MiB is the least"
        )
    if not re.fullmatch(_CPUSET, resources.cpuset):
        raise InvalidRequest(f"{resources.cpuset!r} is not a list of CPUs; use e.g. 0-2,4")
    if resources.pids < 0:
        raise InvalidRequest(f"pids is {resources.pids}; it must be 0 (unlimited) or more")
    for name, value in resources.unified:
        if name == _FREEZER and value in ("0", "1"):
            continue
        if not re.fullmatch(_CGROUP_FILE, name) or name.startswith("cgroup.") or "\0" in value:
            raise InvalidRequest(
                f"{name!r} is not a limit of a cgroup; use e.g. memory.low or io.weight"
            )


def demand(config: PodConfig, limits: Iterable[Resources]) -> VmSize:
    """Returns the required size of the machine.

    Processors: the sum of the containers' cpu limits, and at least as many as their cpusets or the
    pod's configuration require. Memory: that of the pod's configuration, for the guest and
    containers without a limit, plus the sum of all limits, or what is reserved if that is more.
    """
    reserved = config.options.reserved
    found = tuple(limits)
    vcpus = math.ceil(sum(one.cpus for one in found))
    named = max((_named(one) for one in found), default=0)
    memory_bytes = max(reserved.memory_bytes, sum(one.memory_bytes for one in found))
    return VmSize(
        vcpus=max(config.vcpus, reserved.vcpus, vcpus, named),
        memory_mib=config.memory_mib + -(-memory_bytes // _MIB),
    )


def larger(one: Resources, other: Resources) -> Resources:
    """Returns limits for which the machine must be as large as for the larger of two."""
    most_cpus = max(one, other, key=lambda limits: limits.cpus)
    most_named = max(one, other, key=_named)
    memory_bytes = max(one.memory_bytes, other.memory_bytes)
    return structs.replace(most_cpus, cpuset=most_named.cpuset, memory_bytes=memory_bytes)


def _named(limits: Resources) -> int:
    """Returns the number of processors that a cpuset requires; they are numbered from 0."""
    return max((int(number) + 1 for number in re.findall(r"\d+", limits.cpuset)), default=0)


def can_grow(capabilities: frozenset[Capability]) -> bool:
    """Returns whether both the machine and its guest can be resized."""
    return capabilities >= _NEEDED


async def fit(session: Session, changed: str = "", limits: Resources | None = None) -> None:
    """Resizes the machine to what its containers need, and brings plugged resources online.

    Args:
        session: session of a running pod.
        changed: a container whose limits differ from the store.
        limits: its limits; None when the container does not exist (any more).

    Raises:
        InvalidRequest: the machine would have to grow, which is not supported.
    """
    found = [
        (await session.store.container_spec(name)).resources
        for name in await session.store.containers()
        if name != changed and (await session.store.container_state(name)).is_in_guest
    ]
    if limits is not None:
        found.append(limits)
    start = demand(session.config, ())
    base = session.state.base or start
    wanted = demand(session.config, found)
    if wanted == (session.state.size or base):
        return
    if not can_grow(session.capabilities):
        if wanted == start:
            return
        raise InvalidRequest(
            f"{wanted.vcpus} vCPUs and {wanted.memory_mib} MiB are needed and the machine cannot "
            "grow; "
            "make the pod with as much"
        )
    size = await session.hooks.vm_resize(pod=session.pod, size=wanted)
    await session.put_driver_state()
    plugged = max(0, size.memory_mib - base.memory_mib)
    await session.hooks.agent_online(
        pod=session.pod, vcpus=wanted.vcpus, plugged_memory_mib=plugged
    )
    in_use = structs.replace(size, vcpus=wanted.vcpus)
    await session.put_state(structs.replace(session.state, size=in_use))
