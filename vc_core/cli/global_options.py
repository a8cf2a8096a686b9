"""The global options, and the runtime that they open."""

from __future__ import annotations

import logging
import sys
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from msgspec import Struct

from vc_core.cli.escapes import shown
from vc_core.first_party import PACKAGES

if TYPE_CHECKING:
    from vc_core.config import Config
    from vc_core.engine.api.pod_listing import Listing
    from vc_core.engine.api.runtime import Runtime

T = TypeVar("T")


class _Lines(logging.Formatter):
    """Formats log records as lines of `vc`."""

    def format(self, record: logging.LogRecord) -> str:
        head = f"vc: {record.levelname.lower()}:"
        if sys.stderr.isatty():
            head = click.style(head, fg="red" if record.levelno >= logging.ERROR else "yellow")
        return f"{head} {shown(record.getMessage())}"


class Settings(Struct, frozen=True):
    """The global options.

    Attributes:
        config_file: value of --config.
        is_debugging: value of --debug.
    """

    config_file: str | None = None
    is_debugging: bool = False

    def set_up_logging(self) -> None:
        """Log warnings to stderr; with --debug, log everything."""
        handler = logging.StreamHandler()
        handler.setFormatter(_Lines())
        for name in ("vc_core", *PACKAGES):
            logging.getLogger(name).setLevel(
                logging.DEBUG if self.is_debugging else logging.WARNING
            )
        logging.getLogger().addHandler(handler)

    def load_config(self) -> Config:
        """Load the configuration file in use."""
        from vc_core.config import load

        return load(Path(self.config_file) if self.config_file else None)

    @asynccontextmanager
    async def runtime(self) -> AsyncIterator[Runtime]:
        """Open a runtime for a block."""
        from vc_core.engine.api.runtime import Runtime

        async with Runtime.open(self.load_config()) as runtime:
            yield runtime

    async def pods(self, ask_guests: bool = False) -> Listing:
        """List the pods, without loading more than that takes."""
        from vc_core.engine.api.pod_list import list_pods

        return await list_pods(self.load_config(), ask_guests)


def run_async(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine in a new event loop."""
    import asyncio

    return asyncio.run(work)
