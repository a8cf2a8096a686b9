"""Runs one command line, and tells its failure where the caller looks for it."""

from __future__ import annotations

import datetime as dt
import json
import logging
import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

from vc_runtime import options
from vc_runtime.errors import RuntimeFailure

# The modules of commands, imported when one is run: each imports only what it needs.
_ON_HOST = ("state", "kill", "features", "list", "spec")


class _Log(logging.Handler):
    """Appends lines to the file of --log, in runc's formats; without one, writes to stderr."""

    def __init__(self, file: str, is_json: bool) -> None:
        super().__init__()
        self._file = file
        self._is_json = is_json

    def emit(self, record: logging.LogRecord) -> None:
        if self._file:
            self.tell(record.levelname.lower(), record.getMessage())
        else:
            sys.stderr.write(f"{one_line(record.getMessage())}\n")

    def tell(self, level: str, text: str) -> None:
        """Appends one line; does nothing without a file."""
        if not self._file:
            return
        time = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
        line = (
            json.dumps({"level": level, "msg": text, "time": time})
            if self._is_json
            else f'time="{time}" level={level} msg={json.dumps(text)}'
        )
        with Path(self._file).open("a") as file:
            file.write(f"{line}\n")


def run(words: Sequence[str]) -> int:
    """Runs a command line; returns the exit code."""
    log = _Log("", False)
    try:
        found = options.parse(words)
        log = _Log(found.log, found.log_format == "json")
        logging.getLogger().addHandler(log)
        logging.getLogger().setLevel(logging.DEBUG if found.debug else logging.WARNING)
        return _dispatch(found)
    except Exception as error:
        text = explained(error)
        log.tell("error", text)
        sys.stderr.write(f"{text}\n")
        if not isinstance(error, RuntimeFailure) and not _is_ours(error):
            logging.getLogger(__name__).debug("the failure", exc_info=error)
        return 1


def explained(error: Exception) -> str:
    """Returns one line for an error, in the words that callers look for."""
    from vc_core.spec.errors import CannotExecute

    if isinstance(error, CannotExecute):
        what = "executable file not found in $PATH" if error.is_missing else "permission denied"
        return f"{what}: {error}"
    text = str(error) or type(error).__name__
    if not isinstance(error, RuntimeFailure) and not _is_ours(error):
        text = f"internal error: {type(error).__name__}: {text}"
    return one_line(text)


def one_line(text: str) -> str:
    """Returns a text that a guest may have written, as one line for a terminal."""
    line = " ".join(text.split())
    return "".join(
        one if one.isprintable() else one.encode("unicode_escape").decode() for one in line
    )


def _is_ours(error: Exception) -> bool:
    from vc_core.spec.errors import VcError

    return isinstance(error, VcError)


def _dispatch(found: Namespace) -> int:
    if found.version:
        from vc_core import __version__

        sys.stdout.write(f"vc-runtime version {__version__}\nspec: 1.3.0\n")
        return 0
    if found.verb in _ON_HOST:
        from vc_runtime import host_commands

        return host_commands.VERBS[found.verb](found)
    if found.verb in ("create", "exec"):
        from vc_runtime import process_commands

        return process_commands.VERBS[found.verb](found)
    if found.verb == "events":
        from vc_runtime import events

        return events.events(found)
    from vc_runtime import guest_commands

    return guest_commands.VERBS[found.verb](found)
