"""The plugin pasta keeps the contract; what it leaves on the host."""

from __future__ import annotations

import os

import pytest
from vc_network import pasta
from vc_network.namespace import folder
from vc_network.plugin import PastaNetwork

from vc_core.spec import NetworkRequest, PodRef, Reach
from vc_core.testing import NetworkContract, NetworkSubject


@pytest.mark.usefixtures("own_network")
class TestPasta(NetworkContract):
    @pytest.fixture
    def subject(self, tmp_path):
        return NetworkSubject(PastaNetwork, tmp_path)


@pytest.mark.usefixtures("own_network")
async def test_a_pasta_that_could_not_write_its_pid_file_is_found_and_ended(run_dir):
    plugin, pod = PastaNetwork(), PodRef(id="p", run_dir=run_dir)
    made = await plugin.network_connect(pod=pod, request=NetworkRequest(reach=Reach.FULL))
    os.close(made.interfaces[0].nic.descriptor)
    started = pasta.process_of(run_dir)
    assert started is not None
    (folder(run_dir) / "pasta.pid").write_text("")  # as on a full disk
    assert pasta.process_of(run_dir) == started
    assert await plugin.network_is_connected(pod=pod)
    await plugin.network_disconnect(pod=pod)
    assert not started.is_alive()
