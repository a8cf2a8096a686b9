"""All hooks of the contract, in one typed object."""

from __future__ import annotations

from vc_core.spec.agent import AgentSpec
from vc_core.spec.device import DeviceSpec
from vc_core.spec.events import EventSpec
from vc_core.spec.hypervisor import HypervisorSpec
from vc_core.spec.network import NetworkSpec
from vc_core.spec.storage import StorageSpec


class Hooks(HypervisorSpec, AgentSpec, StorageSpec, NetworkSpec):
    """The operations with exactly one answer.

    Events and device operations may have several: wiring has separate methods for them.
    """


FAMILIES: dict[str, type] = {
    "hypervisor": HypervisorSpec,
    "agent": AgentSpec,
    "storage": StorageSpec,
    "device": DeviceSpec,
    "network": NetworkSpec,
}
ALL_SPECS: tuple[type, ...] = (*FAMILIES.values(), EventSpec)
RETIRED: dict[str, str] = {}
"""Operations removed from the contract: the name, and a note for the author of a plugin.

A plugin may still have such a method; it is never called.
"""
