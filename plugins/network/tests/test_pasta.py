"""The plugin pasta keeps the contract; what it leaves on the host."""

from __future__ import annotations

import pytest
from vc_network.plugin import PastaNetwork

from vc_core.testing import NetworkContract, NetworkSubject


@pytest.mark.usefixtures("own_network")
class TestPasta(NetworkContract):
    @pytest.fixture
    def subject(self, tmp_path):
        return NetworkSubject(PastaNetwork, tmp_path)
