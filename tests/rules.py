"""What must be true of a run of the whole suite: nothing real was skipped, and what docs/parity.md
names has passed.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from vc_core.driver_kit import mountinfo

TOGETHER = ("packaging", "acme", "libvirt")


def named_in_parity(root: Path) -> set[str]:
    """The tests that docs/parity.md leans on."""
    return set(re.findall(r"`(test_\w+)`", (root / "docs/parity.md").read_text()))


class SuiteRules:
    """A pytest plugin; in force with --vm-required, which is how the whole suite is run."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._outcomes: dict[str, set[str]] = {}

    @pytest.fixture(autouse=True)
    def _no_mounts_for_pytest_to_delete_through(self, tmp_path: Path) -> Iterator[None]:
        """Leaves no mount of a failed test, or of a pod of mocks that a test did not delete.

        pytest removes old folders of tests with all that is mounted below them, and a mount keeps
        the folders above it busy.
        """
        yield
        for mount in reversed(mountinfo.below(tmp_path)):
            subprocess.run(["umount", "--lazy", mount.point], check=True)

    @property
    def _is_whole(self) -> bool:
        return bool(self._config.getoption("--vm-required"))

    @property
    def _sees_all(self) -> bool:
        """Whether the reports of all tests come here: of several processes only to the one that
        starts the others.
        """
        return self._is_whole and not hasattr(self._config, "workerinput")

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_make_scheduler(self, config: pytest.Config, log: object) -> object:
        """Of several processes some tests stay in one: they share a build or a daemon, or look at
        the whole host.
        """
        from xdist.scheduler import LoadScopeScheduling

        class Groups(LoadScopeScheduling):
            def _split_scope(self, nodeid: str) -> str:
                return next((group for group in TOGETHER if group in nodeid), nodeid)

        return Groups(config, log)

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item) -> Iterator[None]:
        outcome = yield
        report = outcome.get_result()
        if report.skipped and self._is_whole and item.get_closest_marker("vm"):
            report.outcome = "failed"
            report.longrepr = (
                f"a real-VM test was skipped, and --vm-required was given: {report.longrepr}"
            )

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" or report.outcome != "passed":
            name = report.nodeid.rpartition("::")[2].partition("[")[0]
            self._outcomes.setdefault(name, set()).add(report.outcome)

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if not self._sees_all:
            return
        named = named_in_parity(session.config.rootpath)
        wrong = sorted(
            name for name in named if self._outcomes.get(name, {"not run"}) != {"passed"}
        )
        if wrong:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
            print(f"\ndocs/parity.md names tests that did not pass: {', '.join(wrong)}")
