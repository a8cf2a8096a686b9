"""Formats output: coloured tables on a terminal, aligned text in a pipe, JSON with --json."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vc_core.cli.escapes import shown, shown_json

if TYPE_CHECKING:
    from rich.table import Table

    from vc_core.spec.values import ExitStatus

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")

_COLOURS = {
    "running": "green",
    "ready": "cyan",
    "paused": "yellow",
    "stopped": "red",
    "good": "green",
    "bad": "red",
}


@contextmanager
def doing(text: str) -> Iterator[None]:
    """Show a line on stderr during a block, if stderr is a terminal."""
    if not sys.stderr.isatty():
        yield
        return
    click.echo(click.style(f"{shown(text)} …", dim=True), nl=False, err=True)
    try:
        yield
    finally:
        click.echo("\r\x1b[K", nl=False, err=True)


def echo_json(value: object) -> None:
    """Print a value as JSON."""
    click.echo(shown_json(_encoded(value, indent=2)))


def echo_json_line(value: object) -> None:
    """Print a value as one line of JSON."""
    click.echo(shown_json(_encoded(value, indent=None)))


def _encoded(value: object, indent: int | None) -> str:
    import msgspec

    builtins = msgspec.to_builtins(value, enc_hook=str)
    try:
        encoded = msgspec.json.encode(builtins)
    except UnicodeEncodeError:  # surrogates of an undecodable file name, which json escapes
        import json

        return json.dumps(builtins, indent=indent)
    return (encoded if indent is None else msgspec.json.format(encoded, indent=indent)).decode()


def echo_table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Print a table; aligned text without colours if stdout is not a terminal."""
    texts = [[shown(cell) for cell in row] for row in rows]
    if sys.stdout.isatty():
        from rich.console import Console

        Console().print(table(columns, texts))
        return
    widths = [max(map(len, column)) for column in zip(columns, *texts, strict=True)]
    for row in (columns, *texts):
        click.echo(
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        )


def echo_warnings(lines: Iterable[str]) -> None:
    """Print warnings to stderr."""
    for line in lines:
        click.echo(f"{click.style('vc: warning:', fg='yellow')} {shown(line)}", err=True)


def echo_pairs(pairs: Mapping[str, str], as_json: bool) -> None:
    """Print annotations, one per line."""
    if as_json:
        echo_json(dict(pairs))
    else:
        for key, value in pairs.items():
            click.echo(f"{shown(key)}={shown(value)}")


def ago(since_ns: int) -> str:
    """Format a time since the epoch as its age, in one unit; never in the future."""
    seconds = max(0, int(time.time() - since_ns / 1e9))
    for size, name in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds // size} {name} ago"
    return f"{seconds} s ago"


def size(count: int) -> str:
    """Format a number of bytes, in one unit."""
    amount = float(count)
    for unit in ("B", "KiB", "MiB"):
        if amount < 1024:
            return f"{amount:.0f} {unit}"
        amount /= 1024
    return f"{amount:.1f} GiB"


def coloured(state: str) -> str:
    """Style a state in its colour."""
    return click.style(state, fg=_COLOURS.get(state))


def plain(value: object) -> str:
    """Format a setting as TOML."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str | Path):
        return '"' + str(value).replace("\\", "\\\\").replace('"', '\\"') + '"'
    if isinstance(value, tuple | list):
        return "[" + ", ".join(plain(item) for item in value) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {plain(item)}" for key, item in value.items()) + "}"
    return str(value)


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    """Make a rich table."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    rich_table = Table(
        *columns, box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True, header_style="bold"
    )
    for row in rows:
        rich_table.add_row(*(Text(shown(cell), style=_COLOURS.get(cell, "")) for cell in row))
    return rich_table


def exit_text(status: ExitStatus) -> str:
    """Format an exit code; says if the process ran out of memory."""
    return f"{status.code}, out of memory" if status.out_of_memory else str(status.code)
