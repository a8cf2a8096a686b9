"""Writes docs/reference/cli.md from the commands: `make generate` runs it, a test looks whether it was run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click

from vc_core.cli import vc

PAGE = Path(__file__).resolve().parents[1] / "docs/reference/cli.md"
HEAD = """# Commands

<!-- Written by tools/cli_page.py from vc_core/cli: do not edit. -->

What `vc COMMAND --help` prints. Results go to stdout and all else to stderr; what is a table for people is JSON with
`--json` and plain text when it is piped. `vc run` and `vc exec` exit with the command's own code, else: 124 its time
was over, 125 we have failed, 126 it cannot be executed, 127 it is not there, 130 interrupted.
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
            found = command.get_command(ctx, name)
            if found is not None:
                yield from _sections(found, click.Context(found, ctx, name, terminal_width=_WIDTH))


if __name__ == "__main__":
    PAGE.write_text(page())
