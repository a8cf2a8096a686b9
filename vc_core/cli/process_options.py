"""Command-line options of one process, and the specification they make."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click
from msgspec import structs

from vc_core.cli import security_options
from vc_core.cli.option_groups import add_options
from vc_core.cli.units import Duration
from vc_core.spec.errors import InvalidRequest
from vc_core.spec.values import DEFAULT_PATH, ProcessSpec

F = TypeVar("F", bound=Callable[..., Any])

# Options after the first argument belong to the command that runs in the container.
stop_at_first_argument = {"allow_interspersed_args": False}
command_argument = click.argument("command", nargs=-1, type=click.UNPROCESSED)
detach_keys_option = click.option(
    "--detach-keys",
    default="ctrl-p,ctrl-q",
    show_default=True,
    metavar="KEYS",
    help="Key sequence that detaches the terminal.",
)
timeout_option = click.option(
    "--timeout",
    "timeout_s",
    type=Duration(),
    metavar="TIME",
    help="Kill the command after this time, e.g. 30s; exit with 124.",
)

PROCESS_OPTIONS = (
    click.option(
        "--env",
        "-e",
        multiple=True,
        metavar="NAME[=VALUE]",
        help="Set a variable; without VALUE, copy it from the host.",
    ),
    click.option(
        "--env-file",
        "env_files",
        multiple=True,
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        metavar="FILE",
        help="Read variables from a file, one NAME=VALUE per line.",
    ),
    click.option("--workdir", "-w", default="", metavar="DIR", help="Working directory."),
    click.option(
        "--user", "-u", default="", metavar="USER[:GROUP]", help="User and group, by name or ID."
    ),
    click.option(
        "--group-add",
        "--group",
        "groups",
        multiple=True,
        metavar="GROUP",
        help="Add a supplementary group.",
    ),
    click.option("--cap-add", multiple=True, metavar="CAP", help="Add a Linux capability, or ALL."),
    click.option(
        "--cap-drop", multiple=True, metavar="CAP", help="Drop a Linux capability, or ALL."
    ),
    click.option("--tty", "-t", is_flag=True, help="Allocate a terminal."),
    click.option(
        "--interactive", "-i", is_flag=True, help="Has no effect: stdin is always passed."
    ),
    click.option(
        "--new-privileges", is_flag=True, help="Let set-user-ID programs gain privileges."
    ),
)

# What a process gets where neither an option nor an image says otherwise.
DEFAULT_PROCESS = ProcessSpec(args=(), env=(DEFAULT_PATH,))


def process_options(function: F) -> F:
    """Decorate a command with the options that `process_spec` reads."""
    return add_options(PROCESS_OPTIONS, function)


def process_spec(
    command: Sequence[str], options: Mapping[str, Any], default: ProcessSpec = DEFAULT_PROCESS
) -> ProcessSpec:
    """Make the specification of a process.

    Args:
        command: argv.
        options: values of the process options, by name.
        default: values of the options that were not given.

    Raises:
        InvalidRequest: the command is empty, a variable has no name, or the working directory
            is relative.
    """
    command = command_words(command)
    workdir = options["workdir"] or default.cwd
    if workdir and not workdir.startswith("/"):
        raise InvalidRequest(f"--workdir {workdir!r} must be an absolute path in the container")
    return structs.replace(
        _terminal() if options["tty"] else ProcessSpec(args=()),
        args=tuple(command),
        env=_environment(options, default.env),
        cwd=workdir,
        user=options["user"] or default.user,
        groups=tuple(options["groups"]),
        no_new_privileges=False if options["new_privileges"] else default.no_new_privileges,
        capabilities=security_options.capabilities(
            options["cap_add"], options["cap_drop"], default.capabilities
        ),
    )


def command_words(command: Sequence[str]) -> tuple[str, ...]:
    """Remove the leading "--" that click leaves in place when it follows a pod's name.

    Raises:
        InvalidRequest: the command is empty.
    """
    words = tuple(command[1:] if command and command[0] == "--" else command)
    if not words:
        raise InvalidRequest("no command was given; put it after an image name or after --")
    return words


def _environment(options: Mapping[str, Any], default: Sequence[str]) -> tuple[str, ...]:
    """Merge the defaults, environment files and --env, each name's last value last."""
    given = (*_read_files(options.get("env_files", ())), *options["env"])
    given_names = {word.partition("=")[0] for word in given}
    words = [word for word in default if word.partition("=")[0] not in given_names]
    for word in given:
        name, equals, value = word.partition("=")
        if not name or any(map(str.isspace, name)):
            raise InvalidRequest(f"--env {word!r} has no variable name; use NAME=VALUE")
        if equals or name in os.environ:
            words.append(f"{name}={value if equals else os.environ[name]}")
    if (
        options["tty"]
        and "TERM" in os.environ
        and not any(word.startswith("TERM=") for word in words)
    ):
        words.append(f"TERM={os.environ['TERM']}")
    return tuple({word.partition("=")[0]: word for word in words}.values())


def _read_files(files: Sequence[Path]) -> list[str]:
    """Read environment files: one variable per line; blank lines and # comments are skipped."""
    words = []
    for file in files:
        try:
            lines = file.read_text().splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidRequest(f"--env-file {file} cannot be read: {error}") from error
        words += [
            line.lstrip() for line in lines if line.strip() and not line.lstrip().startswith("#")
        ]
    return words


def _terminal() -> ProcessSpec:
    """A process with a terminal of the size of ours."""
    from vc_core.cli.terminal import size

    rows, columns = size()
    return ProcessSpec(args=(), terminal=True, rows=rows, columns=columns)
