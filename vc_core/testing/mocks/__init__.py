"""Plugins that act on a table instead of a host: a pod in milliseconds, for tests of what uses or
observes pods.
"""

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
