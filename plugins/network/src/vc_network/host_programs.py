"""Runs programs of the host."""

from __future__ import annotations

import asyncio
import resource
import subprocess
from collections.abc import Sequence

from vc_core.driver_kit import program_environment
from vc_core.driver_kit.host_process import end_child
from vc_network.errors import NetworkFailure

_LONGEST_S = 30.0
_DATA_BYTES = 256 << 20  # pasta has 69 MiB, most of them buffers of a fixed size
_FILE_BYTES = 1 << 20


def output(words: Sequence[str], what: str, text: str = "") -> str:
    """Runs a program in this thread's namespace; returns its output.

    Args:
        words: path of the program, and its arguments.
        what: the program for people.
        text: its input.

    Raises:
        NetworkFailure: it failed, or did not end within 30 s; quotes it.
    """
    try:
        done = subprocess.run(
            words,
            input=text,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            env=program_environment(),
            timeout=_LONGEST_S,
        )
    except subprocess.TimeoutExpired as error:
        raise NetworkFailure(f"{what} did not end within {_LONGEST_S:g} s") from error
    if done.returncode != 0:
        said = done.stderr.strip().splitlines()
        reason = said[0] if said else f"exit code {done.returncode}"
        raise NetworkFailure(f"{what} failed: {reason}")
    return done.stdout


async def start_daemon(
    prlimit: str, words: Sequence[str], open_files: int, inherited: Sequence[int] = ()
) -> None:
    """Starts a program that goes to the background as soon as it works; returns then.

    It serves a guest, so that it has limits: of its memory, of what it writes to a file, and of
    what it opens. It leaves no core dump.

    Args:
        prlimit: path of the program prlimit.
        words: path of the program, and its arguments.
        open_files: most descriptors that it has open, if this process may have as many.
        inherited: descriptors that it gets besides the standard ones.

    Raises:
        NetworkFailure: it failed; the text is its last line.
    """
    child = await asyncio.create_subprocess_exec(
        prlimit,
        *_limits(open_files),
        "--",
        *words,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        env={"PATH": program_environment()["PATH"]},  # secrets of the caller's stay with it
        cwd="/",
        start_new_session=True,
        pass_fds=tuple(inherited),
    )
    try:
        _, said = await child.communicate()
    except BaseException:
        await end_child(child)
        raise
    if child.returncode != 0:
        lines = said.decode(errors="replace").strip().splitlines()
        raise NetworkFailure(lines[-1].strip() if lines else f"exit code {child.returncode}")


def _limits(open_files: int) -> list[str]:
    """Returns the options of prlimit; no limit is above the one that this process has."""
    wanted = {
        "data": (resource.RLIMIT_DATA, _DATA_BYTES),
        "fsize": (resource.RLIMIT_FSIZE, _FILE_BYTES),
        "nofile": (resource.RLIMIT_NOFILE, open_files),
        "core": (resource.RLIMIT_CORE, 0),
    }
    found = []
    for name, (kind, most) in wanted.items():
        _, own = resource.getrlimit(kind)
        value = most if own == resource.RLIM_INFINITY else min(most, own)
        found.append(f"--{name}={value}:{value}")
    return found
