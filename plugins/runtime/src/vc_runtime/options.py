"""The options of runc's command line, as its callers give them.

Those that mean nothing for a machine are accepted and have no effect: `--no-pivot`,
`--no-new-keyring`, `--rootless`, `--criu`.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from vc_core.driver_kit.ownership import is_system_root, user_number
from vc_runtime.errors import RuntimeFailure


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise RuntimeFailure(f"{self.prog}: {message}")


def default_root() -> Path:
    """Returns the folder of records: for root one that a reboot empties."""
    if is_system_root():
        return Path("/run/vc-runtime")
    if runtime := os.environ.get("XDG_RUNTIME_DIR"):
        return Path(runtime) / "vc-runtime"
    return Path(f"/tmp/vc-runtime-{user_number()}")


def parse(words: Sequence[str]) -> argparse.Namespace:
    """Parses a command line; `verb` is the command.

    Raises:
        RuntimeFailure: it is invalid.
    """
    parser = _Parser(prog="vc-runtime", allow_abbrev=False, description=__doc__)
    parser.add_argument("--root", type=Path, default=default_root(), help="folder of records")
    parser.add_argument("--log", default="", help="file for messages")
    parser.add_argument("--log-format", default="text", choices=("text", "json"))
    parser.add_argument("--log-level", default="info")
    parser.add_argument("--debug", action="store_true", help="also log what is done")
    parser.add_argument("--systemd-cgroup", action="store_true", help="names like slice:prefix:id")
    parser.add_argument("--rootless", default="auto")
    parser.add_argument("--criu", default="")
    parser.add_argument("--version", "-v", action="store_true")
    _add_commands(parser)
    found = parser.parse_args(words)
    if found.verb is None and not found.version:
        parser.error("a command is missing; see vc-runtime --help")
    if getattr(found, "preserve_fds", 0):
        parser.error("--preserve-fds: descriptors of the host cannot be passed into a machine")
    return found


def _add_commands(parser: _Parser) -> None:
    verbs = parser.add_subparsers(dest="verb", parser_class=_Parser, metavar="COMMAND")

    def verb(name: str, about: str, has_id: bool = True) -> argparse.ArgumentParser:
        made = verbs.add_parser(name, help=about, allow_abbrev=False)
        if has_id:
            made.add_argument("id", metavar="CONTAINER")
        return made

    create = verb("create", "create a container from a bundle")
    create.add_argument("--bundle", "-b", type=Path, default=Path())
    _of_process(create)
    create.add_argument("--no-pivot", action="store_true")
    create.add_argument("--no-new-keyring", action="store_true")
    create.add_argument("--no-subreaper", action="store_true")
    verb("start", "start a created container")
    verb("state", "print the state of a container")
    kill = verb("kill", "send a signal to a container")
    kill.add_argument("--all", "-a", action="store_true", help="to all its processes")
    kill.add_argument("signal", nargs="?", default="TERM")
    delete = verb("delete", "delete a container")
    delete.add_argument("--force", "-f", action="store_true", help="also one that runs")
    execute = verb("exec", "run a process in a container")
    execute.add_argument("--process", "-p", type=Path)
    execute.add_argument("--detach", "-d", action="store_true")
    execute.add_argument("--tty", "-t", action="store_true")
    execute.add_argument("--env", "-e", action="append", default=[])
    execute.add_argument("--cwd", default="")
    execute.add_argument("--user", "-u", default="")
    _of_process(execute)
    execute.add_argument("command", nargs=argparse.REMAINDER)
    ps = verb("ps", "list the processes of a container")
    ps.add_argument("--format", "-f", default="table", choices=("table", "json"))
    ps.add_argument("words", nargs=argparse.REMAINDER)
    verb("pause", "suspend the processes of a container")
    verb("resume", "resume the processes of a container")
    update = verb("update", "change the limits of a container")
    update.add_argument("--resources", "-r", default="", help="file of JSON, or - for stdin")
    events = verb("events", "print statistics of a container, and that its memory was short")
    events.add_argument("--stats", action="store_true", help="print them once")
    events.add_argument("--interval", default="5s", help="time between statistics")
    verb("features", "print what this runtime supports", has_id=False)
    listing = verb("list", "list containers", has_id=False)
    listing.add_argument("--format", "-f", default="table", choices=("table", "json"))
    listing.add_argument("--quiet", "-q", action="store_true", help="only ids")
    spec = verb("spec", "write a config.json", has_id=False)
    spec.add_argument("--bundle", "-b", type=Path, default=Path())


def _of_process(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--console-socket", default="", help="gets the terminal")
    parser.add_argument("--pid-file", type=Path)
    parser.add_argument("--preserve-fds", type=int, default=0, help="must be 0")
