"""Exit codes, and errors printed as one line."""

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
    """Exit codes of `vc` itself; `run` and `exec` otherwise exit with the command's code."""

    GOOD = 0
    TIMED_OUT = 124  # the command was killed after its timeout
    FAILURE = 125  # an error of vc, not of the command
    CANNOT_EXECUTE = 126  # the command cannot be executed
    NOT_FOUND = 127  # the command does not exist
    INTERRUPTED = 130
    BROKEN_PIPE = 141


class OutputClosed(Exception):
    """The reader of our output has closed it.

    Not a BrokenPipeError, because click turns that into exit code 1.
    """


@contextmanager
def writing() -> Iterator[None]:
    """Turn a BrokenPipeError in a block that writes a stream into OutputClosed.

    Raises:
        OutputClosed: the reader of our output has closed it.
    """
    try:
        yield
    except BrokenPipeError as error:
        raise OutputClosed from error


def output_failed(reason: str, code: object) -> int:
    """Report that output could not be written, and return the exit code.

    Args:
        reason: text of the error.
        code: exit code of the command; kept if it is not 0.
    """
    if reason == os.strerror(errno.EPIPE):
        return Exit.BROKEN_PIPE
    _print(f"{_head()} stdout cannot be written: {reason}")
    return code if isinstance(code, int) and code != Exit.GOOD else Exit.FAILURE


def report_error(error: Exception, is_debugging: bool) -> Exit:
    """Print an error and return its exit code."""
    from vc_core.spec.errors import (
        CannotExecute,
        ConfigError,
        PluginContractError,
        VcError,
    )  # 50 ms, for errors only

    if isinstance(error, OutputClosed):
        return Exit.BROKEN_PIPE
    if is_debugging:
        _print(shown("".join(traceback.format_exception(error)).rstrip(), keep="\n\t"))
    if isinstance(error, ConfigError | PluginContractError):
        for problem in error.problems:
            _print(f"{_head()} {shown(problem)}")
    elif isinstance(error, VcError):
        _print(f"{_head()} {shown(error)}")
    elif not (
        isinstance(error, OSError) and standard_streams.unwritable()
    ):  # main() reports it at the end
        _print(
            f"{_head()} {type(error).__name__}: {shown(error)} "
            "(a bug in vc; run with --debug for a traceback)"
        )
    if isinstance(error, CannotExecute):
        return Exit.NOT_FOUND if error.is_missing else Exit.CANNOT_EXECUTE
    return Exit.FAILURE


def _head() -> str:
    return click.style("vc: error:", fg="red", bold=True)


def _print(line: str) -> None:
    with contextlib.suppress(
        OSError
    ):  # stderr cannot be written either; only the exit code is left
        click.echo(line, err=True)
