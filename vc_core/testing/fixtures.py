"""A pytest plugin: fixtures for pods without a host.

Has no effect unless used; its dependencies are imported at use.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from vc_core.config import Config
    from vc_core.engine.api.runtime import Runtime
    from vc_core.engine.wiring.catalog import Factory
    from vc_core.testing.faults import Faults
    from vc_core.testing.mocks import World
    from vc_core.testing.recording import Recording


@pytest.fixture
def vc_world(tmp_path: Path) -> Iterator[World]:
    """Provides the world of the mocks, one per test; unmounts what undeleted pods have mounted."""
    from vc_core.driver_kit import mountinfo
    from vc_core.engine.host import mount_calls
    from vc_core.testing.mocks import World

    yield World(tmp_path / "run")
    # pytest removes old folders of tests with the contents of all mounts below them.
    for mount in reversed(mountinfo.below(tmp_path)):
        mount_calls.unmount(mount.point)


@pytest.fixture
def vc_config(tmp_path: Path) -> Config:
    """Returns a configuration of mocks."""
    from vc_core.testing.pods import mock_config

    return mock_config(tmp_path)


@pytest.fixture
def vc_runtime(vc_world: World, vc_config: Config) -> Callable[..., Runtime]:
    """Returns a function that opens runtimes of mocks, each as another process would.

    Called as `vc_runtime(config, {family_and_name: plugin})`.
    """
    from vc_core.testing.pods import mock_runtime

    def opened(
        config: Config | None = None, extra: dict[tuple[str, str], Factory] | None = None
    ) -> Runtime:
        return mock_runtime(vc_world, config or vc_config, extra)

    return opened


@pytest.fixture
def vc_faults(vc_world: World) -> Faults:
    """Selects the operation that fails."""
    return vc_world.faults


@pytest.fixture
def vc_recording(vc_world: World) -> Recording:
    """Provides the recorded operations and events."""
    return vc_world.recording
