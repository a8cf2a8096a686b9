"""Exit codes, and errors in one line."""

from __future__ import annotations

import enum
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

import click

from vc_core.cli.escapes import shown


class Exit(enum.IntEnum):
    """What `vc` itself exits with; `run` and `exec` give the command's own code otherwise."""

    GOOD = 0
    TIMED_OUT = 124  # the command was killed when its time was over
    FAILURE = 125  # ours, not the command's
    CANNOT_EXECUTE = 126  # the command is there but cannot be executed
    NOT_FOUND = 127  # the command is not there
    INTERRUPTED = 130
    BROKEN_PIPE = 141


class OutputClosed(Exception):
    """Nobody reads our output any more. Not a BrokenPipeError: click would make a plain failure of that."""


@contextmanager
def writing() -> Iterator[None]:
    """For a block that writes on and on: that nobody reads any more ends it.

    Raises:
        OutputClosed: instead of BrokenPipeError.
    """
    try:
        yield
    except BrokenPipeError as error:
        raise OutputClosed from error


def told(error: Exception, is_debugging: bool) -> Exit:
    """Prints an error for people; gives its exit code."""
    from vc_core.spec.errors import CannotExecute, ConfigError, PluginContractError, VcError  # 50 ms, for errors only

    if isinstance(error, OutputClosed):
        return Exit.BROKEN_PIPE
    if is_debugging:
        click.echo(shown("".join(traceback.format_exception(error)), keep="\n\t"), err=True, nl=False)
    head = click.style("vc: error:", fg="red", bold=True)
    if isinstance(error, ConfigError | PluginContractError):
        for problem in error.problems:
            click.echo(f"{head} {shown(problem)}", err=True)
    elif isinstance(error, VcError):
        click.echo(f"{head} {shown(error)}", err=True)
    else:
        click.echo(f"{head} {type(error).__name__}: {shown(error)} (a defect of ours; --debug shows where)", err=True)
    if isinstance(error, CannotExecute):
        return Exit.NOT_FOUND if error.is_missing else Exit.CANNOT_EXECUTE
    return Exit.FAILURE
