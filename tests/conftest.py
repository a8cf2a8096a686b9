"""Fixtures of all tests: a world of mocks, and the rules of the whole suite."""

from __future__ import annotations

import pytest

from tests.rules import SuiteRules
from vc_core.engine.api.runtime import Runtime
from vc_core.testing import mock_runtime


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--vm-required",
        action="store_true",
        help="fail when a test that needs a real VM is skipped",
    )


def pytest_configure(config: pytest.Config) -> None:
    # As a plugin, not as hooks of this file: those would not see the tests of plugins/.
    config.pluginmanager.register(SuiteRules(config))


@pytest.fixture
def world(vc_world):
    return vc_world


@pytest.fixture
def config(vc_config):
    return vc_config


@pytest.fixture
def open_runtime(world, config):
    """Opens a runtime as another process would; modules have configurations of their own."""

    def opened(changed=None, extra=None) -> Runtime:
        return mock_runtime(world, changed or config, extra)

    return opened


@pytest.fixture
async def runtime(open_runtime):
    async with open_runtime() as opened:
        yield opened
