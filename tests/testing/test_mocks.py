"""The mocks keep the contract as real plugins do: tests of the engine lean on that."""

from __future__ import annotations

from pathlib import Path

import pytest

from vc_core.spec import HostDevice
from vc_core.testing import (
    AgentContract,
    AgentSubject,
    DeviceContract,
    DeviceSubject,
    HypervisorContract,
    HypervisorSubject,
    ObserverContract,
    ObserverSubject,
    Recording,
    StorageContract,
    StorageSubject,
    recording_plugin,
)
from vc_core.testing.mocks import World, mock_agent, mock_device, mock_hypervisor, mock_storage
from vc_core.testing.mocks.agent import GUEST


class TestHypervisor(HypervisorContract):
    @pytest.fixture
    def subject(self, tmp_path):
        return HypervisorSubject(mock_hypervisor(World(tmp_path)), GUEST, tmp_path)


class TestAgent(AgentContract):
    @pytest.fixture
    def subject(self, tmp_path):
        world = World(tmp_path)
        return AgentSubject(mock_agent(world), mock_hypervisor(world), Path("/"), tmp_path)


class TestStorage(StorageContract):
    @pytest.fixture
    def subject(self, tmp_path):
        world = World(tmp_path)

        def litter() -> str:
            world.litter.append("odd")
            return "odd"

        return StorageSubject(mock_storage(world), litter)


class TestDevice(DeviceContract):
    @pytest.fixture
    def subject(self, tmp_path):
        own, foreign, broken = (
            HostDevice(path=tmp_path / name, destination="/dev/x")
            for name in ("a.dev", "a.txt", "a.refused")
        )
        return DeviceSubject(mock_device(World(tmp_path)), own, foreign, tmp_path, broken)


class TestRecording(ObserverContract):
    @pytest.fixture
    def subject(self, tmp_path):
        return ObserverSubject(recording_plugin(Recording()), tmp_path)
