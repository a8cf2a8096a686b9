"""Fixtures of all tests: a world of mocks, and the rules of the whole suite."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Mapping

import pytest

from tests.rules import SuiteRules
from vc_core.config import Config, Deadlines, PodDefaults, SnapshotDefaults, Start, TemplateDefaults, Use
from vc_core.engine import mountinfo
from vc_core.engine.runtime import Runtime
from vc_core.testing.faults import fault_plugin
from vc_core.testing.mocks.agent import mock_agent
from vc_core.testing.mocks.device import mock_device
from vc_core.testing.mocks.hypervisor import mock_hypervisor
from vc_core.testing.mocks.storage import mock_storage
from vc_core.testing.mocks.world import World
from vc_core.testing.recording import recording_plugin


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--vm-required", action="store_true", help="fail when a test that needs a real VM is skipped")


def pytest_configure(config: pytest.Config) -> None:
    # As a plugin, not as hooks of this file: those would not see the tests of plugins/.
    config.pluginmanager.register(SuiteRules(config))


@pytest.fixture(autouse=True)
def _no_mounts_for_pytest_to_delete_through(tmp_path) -> Iterator[None]:
    """pytest removes old folders of tests with all that is mounted below them: a failed test must leave no mount."""
    yield
    for one in reversed(mountinfo.below(tmp_path)):
        subprocess.run(["umount", "--lazy", one.point], check=True)


@pytest.fixture
def world(tmp_path) -> World:
    return World(tmp_path / "run")


@pytest.fixture
def config(tmp_path) -> Config:
    """Of mocks. Pods boot: templates have tests of their own."""
    deadlines = Deadlines(default=5, boot=5, lock=2, stop=1)
    plugins = Use("mock", "mock", "mock", ("mock",), ("listener", "faults"))
    return Config(
        plugins,
        PodDefaults(start=Start.COLD),
        TemplateDefaults(tmp_path / "templates"),
        snapshot=SnapshotDefaults(tmp_path / "snapshots"),
        deadlines=deadlines,
    )


@pytest.fixture
def open_runtime(world, config):
    """Opens a runtime as another process would: a new object on the same world."""

    def opened(changed: Config | None = None, extra: Mapping[tuple[str, str], type] | None = None) -> Runtime:
        plugins = {
            ("hypervisor", "mock"): mock_hypervisor(world),
            ("agent", "mock"): mock_agent(world),
            ("storage", "mock"): mock_storage(world),
            ("device", "mock"): mock_device(world),
            ("observer", "faults"): fault_plugin(world.faults),
            ("observer", "listener"): recording_plugin(world.recording),
            **(extra or {}),
        }
        return Runtime.open(changed or config, plugins)

    return opened


@pytest.fixture
async def runtime(open_runtime):
    async with open_runtime() as opened:
        yield opened
