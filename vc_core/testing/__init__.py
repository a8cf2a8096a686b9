"""For authors of plugins: contract suites, and pods without a host.

A suite names the sentence of the contract that a plugin breaks.

    from vc_core.testing import StorageContract, StorageSubject

    class TestMyStore(StorageContract):
        @pytest.fixture
        def subject(self, tmp_path):
            return StorageSubject(lambda: MyStore(MyOptions(tmp_path)))

Needs pytest: the extra `testing`. docs/writing-a-plugin.md has complete examples.
"""

from vc_core.testing.agent_suite import AgentContract, AgentSubject
from vc_core.testing.bypass import (
    Outside,
    PolicyContract,
    PolicySubject,
    attempts,
    open_ways,
)
from vc_core.testing.device import DeviceContract, DeviceSubject
from vc_core.testing.faults import Faults, InjectedFault, fault_plugin
from vc_core.testing.hypervisor import HypervisorContract
from vc_core.testing.machines import HypervisorSubject, installed_guest
from vc_core.testing.network import NetworkContract
from vc_core.testing.network_subject import NetworkSubject
from vc_core.testing.observer import ObserverContract, ObserverSubject
from vc_core.testing.pods import mock_config, mock_runtime
from vc_core.testing.recording import Recording, recording_plugin
from vc_core.testing.rules import ContractBroken, Rule, rules_of
from vc_core.testing.storage import StorageContract, StorageSubject

__all__ = [
    "AgentContract",
    "AgentSubject",
    "ContractBroken",
    "DeviceContract",
    "DeviceSubject",
    "Faults",
    "HypervisorContract",
    "HypervisorSubject",
    "InjectedFault",
    "NetworkContract",
    "NetworkSubject",
    "ObserverContract",
    "ObserverSubject",
    "Outside",
    "PolicyContract",
    "PolicySubject",
    "Recording",
    "Rule",
    "StorageContract",
    "StorageSubject",
    "attempts",
    "fault_plugin",
    "installed_guest",
    "mock_config",
    "mock_runtime",
    "open_ways",
    "recording_plugin",
    "rules_of",
]
