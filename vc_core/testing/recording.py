"""A plugin that notes what happens, in order."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from vc_core.spec import FAMILIES, EventSpec, PodRef, around, hookimpl


@dataclass(frozen=True)
class Call:
    """An operation that has ended.

    Attributes:
        operation: its hook's name.
        pod: its pod's id; empty for one without a pod.
        error: what it raised; None when it succeeded.
    """

    operation: str
    pod: str
    error: BaseException | None = None


@dataclass
class Recording:
    """What has happened.

    Attributes:
        calls: operations, in the order of their ends.
        told: events, as "pod_started web".
    """

    calls: list[Call] = field(default_factory=list)
    told: list[str] = field(default_factory=list)


def recording_plugin(recording: Recording) -> type:
    """An observer that writes into `recording` and changes nothing."""
    members = {name: _surround(name, spec, recording) for spec in FAMILIES.values() for name in _hooks(spec)}
    return type("RecordingPlugin", (), members | {name: _listen(name, recording) for name in _hooks(EventSpec)})


def _hooks(spec: type) -> list[str]:
    return [name for name in vars(spec) if not name.startswith("_")]


def _surround(name: str, spec: type, recording: Recording) -> Callable[..., Any]:
    """Takes what tells whose operation it is, which not all have."""
    given = inspect.signature(vars(spec)[name]).parameters

    @asynccontextmanager
    async def noted(pod: str) -> AsyncIterator[None]:
        try:
            yield
        except BaseException as error:
            recording.calls.append(Call(name, pod, error))
            raise
        recording.calls.append(Call(name, pod))

    if "pod" in given:

        def step(_plugin: object, pod: PodRef) -> Any:
            return noted(pod.id)

    elif "pod_id" in given:

        def step(_plugin: object, pod_id: str) -> Any:  # type: ignore[misc]  # the same step of another operation
            return noted(pod_id)

    else:

        def step(_plugin: object) -> Any:  # type: ignore[misc]
            return noted("")

    step.__name__ = name
    return around(step)


def _listen(name: str, recording: Recording) -> Callable[..., Any]:
    async def note(_plugin: object, pod: PodRef) -> None:
        recording.told.append(f"{name} {pod.id}")

    note.__name__ = name
    return hookimpl(note)
