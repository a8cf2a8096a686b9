"""An OpenTelemetry span for each operation.

The environment configures the exporter, as in OpenTelemetry's specification.
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

_EXPORTERS = "opentelemetry_traces_exporter"  # the entry-point group of exporters


@around_all
class Trace:
    """The plugin `trace`. Nested operations become nested spans."""

    @asynccontextmanager
    async def surround(self, operation: Operation) -> AsyncIterator[None]:
        attributes = {"vc.pod": operation.pod, "vc.plugin": operation.plugin}
        with tracer().start_as_current_span(operation.name, attributes=attributes) as span:
            try:
                yield
            except asyncio.CancelledError:
                span.set_attribute(
                    "vc.outcome", "cancelled"
                )  # a wait that is cancelled is no failure
                raise
            except BaseException as error:
                span.set_attribute("vc.outcome", type(error).__name__)
                raise  # the span records the error itself
            span.set_attribute("vc.outcome", "ok")


@functools.cache
def tracer() -> Tracer:
    """Returns the tracer of the process.

    A program that has configured OpenTelemetry keeps its configuration; otherwise the environment
    selects the exporter.

    Raises:
        LookupError: a named exporter is not installed.
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
    if name == "console":  # stdout belongs to the command
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
