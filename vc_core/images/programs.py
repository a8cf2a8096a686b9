"""Runs the external programs that fetch, unpack and pack images; knows their packages."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from vc_core.driver_kit.host_process import end_child
from vc_core.driver_kit.programs import find_program, program_environment
from vc_core.images.image import ImageError
from vc_core.spec.values import Finding, Verdict

# Program: Debian package, purpose.
_KNOWN = {
    "skopeo": ("skopeo", "registries and Docker archives"),
    "umoci": ("umoci", "unpacking layers"),
    "mkfs.erofs": ("erofs-utils", "every image"),
    "debootstrap": ("debootstrap", "vc image build debian"),
    "tar": ("tar", "tarballs and directories"),
    "zstd": ("zstd", "layers and archives that zstd has compressed"),
    "xz": ("xz-utils", "archives that xz has compressed"),
    "bzip2": ("bzip2", "archives that bzip2 has compressed"),
}
# On every system, so `vc doctor` does not list them.
_ESSENTIAL = {
    "cat": ("coreutils", "an archive from standard input"),
    "gzip": ("gzip", "compressed archives"),
}
_ERROR_LINES = 3
_LOGRUS_MESSAGE = re.compile(r'time="[^"]*" level=\w+ msg=("(?:[^"\\]|\\["\\nt])*")')


async def run(
    program: str,
    *words: str | Path,
    on_line: Callable[[str], None] | None = None,
    output: Path | None = None,
    stdin: int = asyncio.subprocess.DEVNULL,
) -> bytes:
    """Run a program; it is killed if the call is cancelled.

    Args:
        program: name of the program.
        words: its arguments.
        on_line: called with each line of its output.
        output: a new file for its output.
        stdin: descriptor of its stdin; by default it is empty.

    Returns:
        Its output; empty with `on_line` or `output`.

    Raises:
        ImageError: it is missing or failed; with its last error messages.
    """
    executable = path_of(program)
    with ExitStack() as files:
        target = (
            asyncio.subprocess.PIPE if output is None else files.enter_context(output.open("xb"))
        )
        process = await asyncio.create_subprocess_exec(
            executable,
            *words,
            stdin=stdin,
            stdout=target,
            stderr=asyncio.subprocess.PIPE,
            env={**program_environment(), "LC_ALL": "C"},
            start_new_session=True,  # so that Ctrl-C reaches only us, and we clean up
        )
    try:
        text, errors = await asyncio.gather(
            _read(process.stdout, on_line), _read(process.stderr, None)
        )
        code = await process.wait()
    except BaseException:
        await end_child(process, is_leader=True)
        raise
    if code != 0:
        lines = [line for line in errors.decode(errors="replace").splitlines() if line.strip()]
        raise ImageError(
            f"{program} failed: "
            f"{'; '.join(map(_message, lines[-_ERROR_LINES:])) or f'exit code {code}'}"
        )
    return text


def _message(line: str) -> str:
    """Extract the message of a log line of logrus (https://github.com/sirupsen/logrus)."""
    match = _LOGRUS_MESSAGE.match(line)
    return str(json.loads(match[1], strict=False)) if match else line


async def _read(
    stream: asyncio.StreamReader | None, on_line: Callable[[str], None] | None
) -> bytes:
    if stream is None:
        return b""
    if on_line is None:
        return await stream.read()
    async for line in stream:
        on_line(line.decode(errors="replace").strip())
    return b""


def path_of(program: str) -> str:
    """Path of a program.

    Raises:
        ImageError: it is not installed.
    """
    package, purpose = (_KNOWN | _ESSENTIAL)[program]
    path = find_program(program)
    if path is None:
        raise ImageError(
            f"{program} is not installed; it is needed for {purpose}; "
            f"run 'apt-get install {package}'"
        )
    return path


def installing(package: str) -> str:
    """The command that installs a package."""
    return f"apt-get install -y --no-install-recommends {package}"


def diagnose() -> list[Finding]:
    """Check which programs are installed; a missing one is a warning."""
    findings = []
    for program, (package, purpose) in _KNOWN.items():
        try:
            findings.append(Finding(subject=program, verdict=Verdict.GOOD, detail=path_of(program)))
        except ImageError:
            text = f"not installed; needed for {purpose}"
            findings.append(
                Finding(
                    subject=program,
                    verdict=Verdict.WARNING,
                    detail=text,
                    remedy=f"apt-get install {package}",
                    fix=installing(package),
                )
            )
    return findings
