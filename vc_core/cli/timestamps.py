"""Moments, as people read and write them on a command line."""

from __future__ import annotations

import datetime as dt
import time

import click

from vc_core.cli.units import Duration


def moment(time_ns: int) -> str:
    """A time since the epoch to the millisecond, never later than it is: --since takes it."""
    whole = dt.datetime.fromtimestamp(time_ns // 1_000_000_000, dt.UTC)
    return f"{whole:%Y-%m-%dT%H:%M:%S}.{time_ns // 1_000_000 % 1000:03}+00:00"


class Since(click.ParamType[int]):
    """A moment: how long ago, as in 10m, or when, as in 2026-01-31T12:00:00.

    Nanoseconds since the epoch.
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
