"""Fixtures of all tests: a world of mocks, and the rule that real-VM tests may not be skipped where CI says so."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mocks.agent import mock_agent
from tests.mocks.device import mock_device
from tests.mocks.hypervisor import mock_hypervisor
from tests.mocks.storage import mock_storage
from tests.mocks.world import World, fault_observer, listening_observer
from vc_core.config import Config, Deadlines, Use
from vc_core.engine import mountinfo
from vc_core.engine.runtime import Runtime


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--vm-required", action="store_true", help="fail when a test that needs a real VM is skipped")


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    outcome = yield
    report = outcome.get_result()
    if report.skipped and item.config.getoption("--vm-required") and item.get_closest_marker("vm"):
        report.outcome = "failed"
        report.longrepr = f"a real-VM test was skipped, and --vm-required was given: {report.longrepr}"


def named_in_parity(root: Path) -> set[str]:
    """The tests that docs/parity.md leans on."""
    return set(re.findall(r"`(test_\w+)`", (root / "docs/parity.md").read_text()))


_outcomes: dict[str, set[str]] = {}


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.when == "call" or report.outcome != "passed":
        name = report.nodeid.rpartition("::")[2].partition("[")[0]
        _outcomes.setdefault(name, set()).add(report.outcome)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """A row of parity is true only when its tests ran: asked where the whole suite was."""
    if not session.config.getoption("--vm-required"):
        return
    wrong = sorted(
        name for name in named_in_parity(session.config.rootpath) if _outcomes.get(name, {"not run"}) != {"passed"}
    )
    if wrong:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
        print(f"\ndocs/parity.md names tests that did not pass: {', '.join(wrong)}")


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
def config() -> Config:
    deadlines = Deadlines(default=5, boot=5, lock=2, stop=1)
    return Config(Use("mock", "mock", "mock", ("mock",), ("listener", "faults")), deadlines=deadlines)


@pytest.fixture
def open_runtime(world, config):
    """Opens a runtime as another process would: a new object on the same world."""

    def opened(changed: Config | None = None) -> Runtime:
        plugins = {
            ("hypervisor", "mock"): mock_hypervisor(world),
            ("agent", "mock"): mock_agent(world),
            ("storage", "mock"): mock_storage(world),
            ("device", "mock"): mock_device(world),
            ("observer", "faults"): fault_observer(world),
            ("observer", "listener"): listening_observer(world),
        }
        return Runtime.open(changed or config, plugins)

    return opened


@pytest.fixture
async def runtime(open_runtime):
    async with open_runtime() as opened:
        yield opened
