"""Programs of the host: their paths and their environment.

Nothing is executed from the current folder.
"""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path

from vc_core.driver_kit.ownership import is_host_root, untrusted

log = logging.getLogger(__name__)

_ALWAYS = (
    "/usr/local/sbin",
    "/usr/sbin",
    "/sbin",
)  # often missing in an ordinary user's PATH
_ROOT = frozenset({0})
# Variables that make Python execute other code than requested: python(1).
_OF_PYTHON = frozenset({"PYTHONSTARTUP", "PYTHONINSPECT"})


def find_program(name: str) -> str | None:
    """Returns the path of a program; None when there is none.

    A name is searched in the absolute folders of PATH and in /usr/sbin and similar folders. Empty
    and relative entries mean the current folder and are skipped. For root, folders that other users
    can change are skipped, too. An absolute path is used as given.

    Args:
        name: a name, or an absolute path. There is no program at a relative path.
    """
    if name.startswith("/"):
        return name if _is_program(name) else None
    if "/" in name or not name:
        return None
    for folder in _folders():
        found = os.path.join(folder, name)  # noqa: PTH118 (a text is wanted)
        if _is_program(found):
            reason = untrusted(Path(found), _ROOT) if is_host_root() else ""
            if not reason:
                return found
            log.info("%s is not used: %s", found, reason)
    return None


def program_environment() -> dict[str, str]:
    """Returns this process's environment, with the PATH that `find_program` uses."""
    folders = _folders()
    if is_host_root():
        folders = [folder for folder in folders if not untrusted(Path(folder), _ROOT)]
    return {**os.environ, "PATH": ":".join(folders)}


def own_command() -> list[str]:
    """Returns the words that run `vc` like this process, from any folder; arguments follow.

    With `python_environment` and the folder "/" it imports nothing from where it is started.

    Raises:
        FileNotFoundError: this Python is part of another program and has no path of its own.
    """
    if not sys.executable:
        raise FileNotFoundError("this Python has no path of its own (sys.executable is empty)")
    flags = ["-P"]
    if sys.flags.ignore_environment:
        flags.append("-E")
    if sys.flags.no_user_site:
        flags.append("-s")
    return [sys.executable, *flags, "-m", "vc_core"]


def python_environment() -> dict[str, str]:
    """Returns the environment for `own_command`: PYTHONPATH without the current folder."""
    made = {name: value for name, value in program_environment().items() if name not in _OF_PYTHON}
    if path := made.pop("PYTHONPATH", ""):
        made |= {
            "PYTHONPATH": ":".join(folder for folder in path.split(":") if folder.startswith("/"))
        }
    return made


def _folders() -> list[str]:
    """Returns the existing folders of PATH, in its order, without relative ones."""
    named = [
        folder for folder in os.environ.get("PATH", os.defpath).split(":") if folder.startswith("/")
    ]
    return [folder for folder in dict.fromkeys((*named, *_ALWAYS)) if os.path.isdir(folder)]  # noqa: PTH112 (Path.is_dir raises for what may not be entered)


def _is_program(path: str) -> bool:
    return os.path.isfile(path) and os.access(path, os.X_OK)  # noqa: PTH113 (likewise)
