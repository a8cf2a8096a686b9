"""Writes docs/reference/cli.md from the help of the commands; `make generate` runs it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click

from vc_core.cli import vc

PAGE = Path(__file__).resolve().parents[1] / "docs/reference/cli.md"
HEAD = """# Commands

<!-- Written by tools/cli_page.py from vc_core/cli: do not edit. -->

This is the output of `vc COMMAND --help`. Results are printed to stdout, all else to stderr. Tables
are plain text if stdout is not a terminal, and JSON with `--json`. `vc run` and `vc exec` exit with
the code of the command, or with 124 (timeout), 125 (error of `vc`), 126 (the command cannot be
executed), 127 (the command does not exist) or 130 (interrupted).
"""
_WIDTH = 80


def page() -> str:
    """The whole text."""
    root = click.Context(vc, info_name="vc", terminal_width=_WIDTH, **vc.context_settings)
    return "\n".join([HEAD, *_sections(vc, root)])


def _sections(command: click.Command, ctx: click.Context) -> Iterator[str]:
    level = "#" * min(4, ctx.command_path.count(" ") + 2)
    yield f"{level} `{ctx.command_path}`\n\n```text\n{command.get_help(ctx)}\n```\n"
    if isinstance(command, click.Group):
        for name in command.list_commands(ctx):
            subcommand = command.get_command(ctx, name)
            if subcommand is not None:
                yield from _sections(
                    subcommand, click.Context(subcommand, ctx, name, terminal_width=_WIDTH)
                )


if __name__ == "__main__":
    PAGE.write_text(page())
