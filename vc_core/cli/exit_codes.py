"""Exit codes, and errors in one line."""

from __future__ import annotations

import contextlib
import enum
import errno
import os
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

import click

from vc_core import standard_streams
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
    """Nobody reads our output any more.

    Not a BrokenPipeError: click would make a plain failure of that.
    """


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


def output_failed(reason: str, code: object) -> int:
    """Tells that what was printed could not be written; gives the exit code, which was to be `code`."""
    if reason == os.strerror(errno.EPIPE):
        return Exit.BROKEN_PIPE
    _tell(f"{_head()} stdout cannot be written: {reason}")
    return code if isinstance(code, int) and code != Exit.GOOD else Exit.FAILURE


def told(error: Exception, is_debugging: bool) -> Exit:
    """Prints an error for people; gives its exit code."""
    from vc_core.spec.errors import (
        CannotExecute,
        ConfigError,
        PluginContractError,
        VcError,
    )  # 50 ms, for errors only

    if isinstance(error, OutputClosed):
        return Exit.BROKEN_PIPE
    if is_debugging:
        _tell(shown("".join(traceback.format_exception(error)).rstrip(), keep="\n\t"))
    if isinstance(error, ConfigError | PluginContractError):
        for problem in error.problems:
            _tell(f"{_head()} {shown(problem)}")
    elif isinstance(error, VcError):
        _tell(f"{_head()} {shown(error)}")
    elif not (
        isinstance(error, OSError) and standard_streams.unwritable()
    ):  # which is told at the end
        _tell(
            f"{_head()} {type(error).__name__}: {shown(error)} (a defect of ours; --debug shows where)"
        )
    if isinstance(error, CannotExecute):
        return Exit.NOT_FOUND if error.is_missing else Exit.CANNOT_EXECUTE
    return Exit.FAILURE


def _head() -> str:
    return click.style("vc: error:", fg="red", bold=True)


def _tell(line: str) -> None:
    with contextlib.suppress(
        OSError
    ):  # stderr cannot be written either: the exit code is all that is left
        click.echo(line, err=True)
