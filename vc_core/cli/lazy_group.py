"""A group whose commands are imported when they are run."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

import click


class LazyGroup(click.Group):
    """A group that imports a command when it is run.

    Args:
        commands_at: by name: the module below vc_core.cli, the attribute, and the help, which is
            repeated there so that `--help` of the group imports none of the modules.
    """

    def __init__(
        self, *args: Any, commands_at: Mapping[str, tuple[str, str, str]], **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self.commands_at = commands_at

    def list_commands(self, _ctx: click.Context) -> list[str]:
        return list(self.commands_at)

    def get_command(self, _ctx: click.Context, name: str) -> click.Command | None:
        if name not in self.commands_at:
            return None
        module, attribute, _ = self.commands_at[name]
        command = getattr(importlib.import_module(f"vc_core.cli.{module}"), attribute)
        if not isinstance(command, click.Command):
            raise TypeError(f"vc_core.cli.{module}.{attribute} is not a command")
        return command

    def format_commands(self, _ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, _, text) in self.commands_at.items()])
