"""Sizes and times, as people write them on a command line."""

from __future__ import annotations

import re

import click

UNITS = {"b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}
_SIZE = re.compile(r"(\d+)([bkmg])i?b?", re.IGNORECASE)
_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)([smh]?)")


def bytes_of(text: str) -> int | None:
    """64m or 2g in bytes; None for what is no size."""
    match = _SIZE.fullmatch(text)
    return int(match[1]) * UNITS[match[2].lower()] if match else None


class Size(click.ParamType[int]):
    """Bytes, with a unit: 64m, 2g."""

    name = "size"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> int:
        if isinstance(value, int):
            return value
        found = bytes_of(str(value))
        if found is None:
            self.fail(
                f"{value!r} is no size; give a number and a unit, as in 512m or 2g", param, ctx
            )
        return found


class Duration(click.ParamType[float]):
    """Seconds, or a number with a unit: 30s, 5m, 1h."""

    name = "time"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        if isinstance(value, float):
            return value
        match = _DURATION.fullmatch(str(value))
        if match is None or not float(match[1]):
            self.fail(
                f"{value!r} is no time; give a number and a unit, as in 30s, 5m or 1h", param, ctx
            )
        return float(match[1]) * _SECONDS[match[2]]


SIZE = Size()
