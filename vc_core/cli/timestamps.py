"""Formats and parses times on the command line."""

from __future__ import annotations

import datetime as dt
import time

import click

from vc_core.cli.units import Duration


def moment(time_ns: int) -> str:
    """Format a time since the epoch in UTC, rounded down to milliseconds; --since parses it."""
    whole = dt.datetime.fromtimestamp(time_ns // 1_000_000_000, dt.UTC)
    return f"{whole:%Y-%m-%dT%H:%M:%S}.{time_ns // 1_000_000 % 1000:03}+00:00"


class Since(click.ParamType[int]):
    """A time: an age such as 10m, or ISO 8601 such as 2026-01-31T12:00:00.

    The value is in nanoseconds since the epoch.
    """

    name = "time"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> int:
        text = str(value)
        try:
            since = dt.datetime.fromisoformat(text).astimezone() - dt.datetime.fromtimestamp(
                0, dt.UTC
            )
            return since // dt.timedelta(microseconds=1) * 1000
        except ValueError:
            return time.time_ns() - int(Duration().convert(text, param, ctx) * 1e9)
