"""A span for each operation.

Where spans go is told by the environment, as OpenTelemetry's specification has it.
"""

from __future__ import annotations

import asyncio
import functools
import importlib.metadata
import os
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from vc_core.spec import Operation, around_all

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.export import SpanExporter
    from opentelemetry.trace import Tracer

_EXPORTERS = (
    "opentelemetry_traces_exporter"  # the group of entry points in which exporters offer themselves
)


@around_all
class Trace:
    """The plugin `trace`. Operations within one another are spans within one another."""

    @asynccontextmanager
    async def surround(self, operation: Operation) -> AsyncIterator[None]:
        attributes = {"vc.pod": operation.pod, "vc.plugin": operation.plugin}
        with tracer().start_as_current_span(operation.name, attributes=attributes) as span:
            try:
                yield
            except asyncio.CancelledError:
                span.set_attribute(
                    "vc.outcome", "cancelled"
                )  # a wait that nobody needs any more is no failure
                raise
            except BaseException as error:
                span.set_attribute("vc.outcome", type(error).__name__)
                raise  # the span notes the error itself
            span.set_attribute("vc.outcome", "ok")


@functools.cache
def tracer() -> Tracer:
    """The process's. A program that has set OpenTelemetry up keeps its own; else the environment
    says what is exported.

    Raises:
        LookupError: an exporter is named that is not installed.
    """
    from opentelemetry import trace
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    if isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
        provider = TracerProvider()
        for name in filter(None, os.environ.get("OTEL_TRACES_EXPORTER", "").split(",")):
            if name != "none":
                provider.add_span_processor(BatchSpanProcessor(_exporter(name)()))
        trace.set_tracer_provider(provider)
    return trace.get_tracer("virtcontainers")


def _exporter(name: str) -> Callable[[], SpanExporter]:
    if name == "console":  # our own output is the command's
        from opentelemetry.sdk.trace.export import ConsoleSpanExporter

        return functools.partial(ConsoleSpanExporter, out=sys.stderr)
    found = importlib.metadata.entry_points(group=_EXPORTERS, name=name)
    if not found:
        known = ", ".join(importlib.metadata.entry_points(group=_EXPORTERS).names)
        raise LookupError(
            f"OTEL_TRACES_EXPORTER names {name!r}, which is not installed; there are: {known}"
        )
    loaded: Callable[[], SpanExporter] = next(iter(found)).load()
    return loaded
