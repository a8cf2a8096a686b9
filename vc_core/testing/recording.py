"""A plugin that records operations and events, in order."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from vc_core.spec import EventSpec, Operation, PodRef, around_all, hookimpl


@dataclass(frozen=True)
class Call:
    """An operation that has ended.

    Attributes:
        operation: the operation, with its plugin and pod.
        error: the exception that it raised; None when it succeeded.
    """

    operation: Operation
    error: BaseException | None = None


@dataclass
class Recording:
    """The recorded operations and events.

    Attributes:
        calls: operations, in the order of their ends.
        told: events, as "pod_started web".
    """

    calls: list[Call] = field(default_factory=list)
    told: list[str] = field(default_factory=list)


def recording_plugin(recording: Recording) -> type:
    """Returns an observer that writes into `recording` and changes nothing."""

    @around_all
    class RecordingPlugin:
        @asynccontextmanager
        async def surround(self, operation: Operation) -> AsyncIterator[None]:
            try:
                yield
            except BaseException as error:
                recording.calls.append(Call(operation, error))
                raise
            recording.calls.append(Call(operation))

    for name in vars(EventSpec):
        if not name.startswith("_"):
            setattr(RecordingPlugin, name, _listen(name, recording))
    return RecordingPlugin


def _listen(name: str, recording: Recording) -> Callable[..., Any]:
    async def note(_plugin: object, pod: PodRef) -> None:
        recording.told.append(f"{name} {pod.id}")

    note.__name__ = name
    return hookimpl(note)
