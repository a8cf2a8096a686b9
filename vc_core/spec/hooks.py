"""All hooks of the contract, in one typed object."""

from __future__ import annotations

from vc_core.spec.agent import AgentSpec
from vc_core.spec.device import DeviceSpec
from vc_core.spec.events import EventSpec
from vc_core.spec.hypervisor import HypervisorSpec
from vc_core.spec.storage import StorageSpec


class Hooks(HypervisorSpec, AgentSpec, StorageSpec):
    """Operations with exactly one answer.

    Events and devices have several: wiring has methods of its own for them.
    """


FAMILIES: dict[str, type] = {
    "hypervisor": HypervisorSpec,
    "agent": AgentSpec,
    "storage": StorageSpec,
    "device": DeviceSpec,
}
ALL_SPECS: tuple[type, ...] = (*FAMILIES.values(), EventSpec)
RETIRED: dict[str, str] = {}
"""Operations that the contract no longer has: name to what to know. A plugin may still have one; it
is never called.
"""
