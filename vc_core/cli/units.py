"""Parses sizes and durations on the command line."""

from __future__ import annotations

import re

import click

UNITS = {"b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}
_SIZE = r"(?i)(\d+)([bkmg])i?b?"
_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600}
_DURATION = r"(\d+(?:\.\d+)?)([smh]?)"


def bytes_of(text: str) -> int | None:
    """Parse a size such as 64m or 2g into bytes; None if it is invalid."""
    match = re.fullmatch(_SIZE, text)
    return int(match[1]) * UNITS[match[2].lower()] if match else None


class Size(click.ParamType[int]):
    """A size with a unit, such as 64m or 2g. The value is in bytes."""

    name = "size"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> int:
        if isinstance(value, int):
            return value
        size_bytes = bytes_of(str(value))
        if size_bytes is None:
            self.fail(
                f"{value!r} is not a size; give a number and a unit, e.g. 512m or 2g", param, ctx
            )
        return size_bytes


class Duration(click.ParamType[float]):
    """A positive duration, such as 30s, 5m or 1h. The value is in seconds."""

    name = "time"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        if isinstance(value, float):
            return value
        match = re.fullmatch(_DURATION, str(value))
        if match is None or not float(match[1]):
            self.fail(
                f"{value!r} is not a duration; give a number and a unit, e.g. 30s, 5m or 1h",
                param,
                ctx,
            )
        return float(match[1]) * _SECONDS[match[2]]


SIZE = Size()
