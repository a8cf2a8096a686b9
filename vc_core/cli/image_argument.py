"""Tells `vc run IMAGE COMMAND` from `vc run -- COMMAND`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from vc_core.cli.completion import images
from vc_core.cli.option_groups import GroupedCommand

F = TypeVar("F", bound=Callable[..., Any])


class ImageCommand(GroupedCommand):
    """A command whose first argument is an image, unless `--` precedes it or --rootfs is given."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse as usual, and look for the `--` that the parser removes."""
        words = list(args)
        options, _, _ = self.make_parser(ctx).parse_args(list(args))
        left = super().parse_args(ctx, args)
        given: tuple[str, ...] = ctx.params.pop("words")
        before = len(words) - len(given) - 1
        behind_dashes = "rootfs" in options or (before >= 0 and words[before] == "--")
        ctx.params["image"] = "" if behind_dashes or not given else given[0]
        ctx.params["command"] = given if behind_dashes else given[1:]
        return left


def image_argument(function: F) -> F:
    """Decorate an `ImageCommand`; its function gets `image` and `command`."""
    return click.argument(
        "words",
        metavar="[IMAGE | --] [COMMAND]...",
        nargs=-1,
        type=click.UNPROCESSED,
        shell_complete=_images,
    )(function)


def _images(ctx: click.Context, param: click.Parameter, prefix: str) -> list[str]:
    return [] if ctx.params.get("words") else images(ctx, param, prefix)
