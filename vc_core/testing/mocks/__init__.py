"""Plugins that work in memory instead of on a host, for fast tests of code that uses pods."""

from vc_core.testing.mocks.agent import MockAgent, mock_agent
from vc_core.testing.mocks.device import MockDevice, mock_device
from vc_core.testing.mocks.hypervisor import MockHypervisor, mock_hypervisor
from vc_core.testing.mocks.network import MockNetwork, mock_network
from vc_core.testing.mocks.storage import MockStorage, mock_storage
from vc_core.testing.mocks.world import World

__all__ = [
    "MockAgent",
    "MockDevice",
    "MockHypervisor",
    "MockNetwork",
    "MockStorage",
    "World",
    "mock_agent",
    "mock_device",
    "mock_hypervisor",
    "mock_network",
    "mock_storage",
]
