"""The contract suite of agent plugins.

Boots a guest for each rule, with a hypervisor plugin of the author's choice.
"""

from __future__ import annotations

import pytest

from vc_core.testing.agent_suite.connection import ConnectionRules
from vc_core.testing.agent_suite.containers import ContainerRules
from vc_core.testing.agent_suite.files import FileRules
from vc_core.testing.agent_suite.images import ImageRules
from vc_core.testing.agent_suite.processes import ProcessRules
from vc_core.testing.agent_suite.stand_ins import StandInRules
from vc_core.testing.agent_suite.subject import AgentSubject
from vc_core.testing.agent_suite.supervision import SupervisionRules

__all__ = ["AgentContract", "AgentSubject"]


class AgentContract(
    ConnectionRules,
    ImageRules,
    ContainerRules,
    ProcessRules,
    StandInRules,
    SupervisionRules,
    FileRules,
):
    """All rules of agents. Subclass it and override the fixture `subject`."""

    @pytest.fixture
    def subject(self) -> AgentSubject:
        """The plugin under test, provided by its author."""
        raise NotImplementedError("give a fixture `subject` that returns an AgentSubject")
