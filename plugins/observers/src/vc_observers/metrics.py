"""Durations, failures and pods by state, for Prometheus: in a file, or over HTTP on loopback."""

from __future__ import annotations

import atexit
import functools
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from prometheus_client import (
    REGISTRY,
    Counter,
    Gauge,
    Histogram,
    start_http_server,
    write_to_textfile,
)

from vc_core.spec import Operation, PodRef, around_all, hookimpl

_LABELS = ("operation", "plugin")
SECONDS = Histogram("vc_operation_seconds", "How long operations took.", _LABELS)
FAILURES = Counter("vc_operation_failures", "Operations that failed.", (*_LABELS, "error"))
PODS = Gauge("vc_pods", "Pods that this process handles.", ("state",))

_states: dict[str, str] = {}


@dataclass(frozen=True)
class MetricsOptions:
    """Where metrics are exported.

    Attributes:
        file: a file that is written after each event and removed when the process ends; "{pid}" in
            it is the process id; empty for none.
        port: a port on the loopback address; 0 for none.
    """

    file: str = ""
    port: int = 0


@around_all
class Metrics:
    """The plugin `metrics`. All its objects in a process share the same metrics."""

    options_type = MetricsOptions

    def __init__(self, options: MetricsOptions) -> None:
        self._file = options.file.replace("{pid}", str(os.getpid()))
        if options.port:
            _serve(options.port)
        if self._file:
            _remove_at_exit(self._file)

    @asynccontextmanager
    async def surround(self, operation: Operation) -> AsyncIterator[None]:
        began = time.monotonic()
        try:
            yield
        except BaseException as error:
            FAILURES.labels(operation.name, operation.plugin, type(error).__name__).inc()
            raise
        finally:
            SECONDS.labels(operation.name, operation.plugin).observe(time.monotonic() - began)

    @hookimpl
    async def pod_created(self, pod: PodRef) -> None:
        self._is(pod, "ready")

    @hookimpl
    async def pod_started(self, pod: PodRef) -> None:
        self._is(pod, "running")

    @hookimpl
    async def pod_paused(self, pod: PodRef) -> None:
        self._is(pod, "paused")

    @hookimpl
    async def pod_resumed(self, pod: PodRef) -> None:
        self._is(pod, "running")

    @hookimpl
    async def pod_stopped(self, pod: PodRef) -> None:
        self._is(pod, "stopped")

    @hookimpl
    async def pod_deleted(self, pod: PodRef) -> None:
        self._is(pod, "")

    def _is(self, pod: PodRef, state: str) -> None:
        former = _states.pop(pod.id, "")
        if former:
            PODS.labels(former).dec()
        if state:
            _states[pod.id] = state
            PODS.labels(state).inc()
        if self._file:
            write_to_textfile(self._file, REGISTRY)


@functools.cache
def _serve(port: int) -> None:
    """Starts the server, once per process."""
    start_http_server(port, addr="127.0.0.1")


@functools.cache
def _remove_at_exit(file: str) -> None:
    atexit.register(Path(file).unlink, missing_ok=True)
