"""Pods of mocks: a runtime as programs open it, with mock machines."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from vc_core.config import Config
from vc_core.defaults import (
    DataDefaults,
    Deadlines,
    ImageDefaults,
    PodDefaults,
    SnapshotDefaults,
    Start,
    TemplateDefaults,
    Use,
    VolumeDefaults,
)
from vc_core.engine.api.runtime import Runtime
from vc_core.engine.wiring.catalog import Factory
from vc_core.testing.faults import fault_plugin
from vc_core.testing.mocks import (
    World,
    mock_agent,
    mock_device,
    mock_hypervisor,
    mock_network,
    mock_storage,
)
from vc_core.testing.recording import recording_plugin


def mock_config(folder: Path, *observers: str) -> Config:
    """Returns a configuration of mocks. Pods boot, deadlines are short.

    Args:
        folder: for templates, snapshots and other files that outlive pods.
        observers: names of further plugins, the first outermost.
    """
    return Config(
        Use("mock", "mock", "mock", ("mock",), (*observers, "recording", "faults")),
        PodDefaults(start=Start.COLD),
        TemplateDefaults(folder / "templates"),
        snapshot=SnapshotDefaults(folder / "snapshots"),
        image=ImageDefaults(folder / "images"),
        data=DataDefaults(folder / "lasting"),
        volume=VolumeDefaults(folder / "volumes"),
        deadlines=Deadlines(default=5, boot=5, lock=2, stop=1),
    )


def mock_runtime(
    world: World, config: Config, extra: Mapping[tuple[str, str], Factory] | None = None
) -> Runtime:
    """Opens a runtime as another process would: a new object on the same world.

    Args:
        world: the state that the mocks work on.
        config: the result of `mock_config`.
        extra: further plugins, or replacements of mocks, by family and name.
    """
    plugins: dict[tuple[str, str], Factory] = {
        ("hypervisor", "mock"): mock_hypervisor(world),
        ("agent", "mock"): mock_agent(world),
        ("storage", "mock"): mock_storage(world),
        ("device", "mock"): mock_device(world),
        ("network", "mock"): mock_network(world),
        ("observer", "faults"): fault_plugin(world.faults),
        ("observer", "recording"): recording_plugin(world.recording),
        **(extra or {}),
    }
    return Runtime.open(config, plugins)
