"""Command-line options that describe a container, and the specification they make."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from vc_core.engine.process import DEFAULT_PATH
from vc_core.spec.errors import InvalidRequest
from vc_core.spec.values import ContainerSpec, Mount, ProcessSpec, Rootfs, RootfsMode, Stdio

F = TypeVar("F", bound=Callable[..., Any])

command_argument = click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
passing = {"ignore_unknown_options": True, "allow_interspersed_args": False}


def process_options(function: F) -> F:
    """--env, --workdir, --user."""
    for option in (
        click.option(
            "--user", "-u", default="0:0", metavar="USER[:GROUP]", help="Numbers, or names the container knows."
        ),
        click.option("--workdir", "-w", default="/", metavar="DIR", help="Where the command starts."),
        click.option(
            "--env", "-e", multiple=True, metavar="NAME[=VALUE]", help="Set a variable; without a value, pass ours."
        ),
    ):
        function = option(function)
    return function


def container_options(function: F) -> F:
    """--rootfs, --mount, and those of the process."""
    function = process_options(function)
    for option in (
        click.option(
            "--mount", "-v", "mounts", multiple=True, metavar="SRC:DST[:ro]", help="A folder or file of the host."
        ),
        click.option(
            "--rootfs",
            default="/",
            show_default=True,
            metavar="DIR[:ro|:rw]",
            help="The container's root; / is the host's own. Changes vanish, unless :rw is said.",
        ),
    ):
        function = option(function)
    return function


def process_spec(command: Sequence[str], env: Sequence[str], workdir: str, user: str) -> ProcessSpec:
    """What the options of a process make.

    Raises:
        InvalidRequest: no command, a variable without a name, or a folder that is not absolute.
    """
    if command and command[0] == "--":  # behind a pod's name click leaves it standing
        command = command[1:]
    if not command:
        raise InvalidRequest("no command was given; it stands behind --")
    if not workdir.startswith("/"):
        raise InvalidRequest(f"--workdir {workdir!r} must be an absolute path in the container")
    words = [DEFAULT_PATH] if not any(word.startswith("PATH=") for word in env) else []
    for word in env:
        name, equals, value = word.partition("=")
        if not name:
            raise InvalidRequest(f"--env {word!r} has no name")
        if equals or name in os.environ:
            words.append(f"{name}={value if equals else os.environ[name]}")
    return ProcessSpec(tuple(command), tuple(words), workdir, user)


def container_spec(
    container_id: str, rootfs: str, mounts: Sequence[str], process: ProcessSpec, stdio: Stdio
) -> ContainerSpec:
    """What the options of a container make.

    Raises:
        InvalidRequest: a mount that is not SRC:DST[:ro|:rw].
    """
    return ContainerSpec(container_id, _rootfs(rootfs), process, tuple(_mount(text) for text in mounts), stdio)


def _rootfs(text: str) -> Rootfs:
    for suffix, mode in ((":rw", RootfsMode.READ_WRITE), (":ro", RootfsMode.READ_ONLY)):
        if text.endswith(suffix):
            return Rootfs(Path(text.removesuffix(suffix)).absolute(), mode)
    return Rootfs(Path(text).absolute())


def _mount(text: str) -> Mount:
    parts = text.split(":")
    if len(parts) == 3 and parts[2] in ("ro", "rw"):
        return Mount(Path(parts[0]).absolute(), parts[1], parts[2] == "ro")
    if len(parts) == 2:
        return Mount(Path(parts[0]).absolute(), parts[1])
    raise InvalidRequest(f"--mount {text!r} is not SRC:DST or SRC:DST:ro")
