"""Programs of other people that fetch, unpack and pack images; each is named with its package when it is missing."""

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

# The program, Debian's package that has it, and what for.
_KNOWN = {
    "skopeo": ("skopeo", "images of registries and docker archives"),
    "umoci": ("umoci", "unpacking layers"),
    "mkfs.erofs": ("erofs-utils", "every image"),
    "debootstrap": ("debootstrap", "vc image build debian"),
    "tar": ("tar", "tarballs and folders"),
    "zstd": ("zstd", "layers and archives that zstd has compressed"),
    "xz": ("xz-utils", "archives that xz has compressed"),
    "bzip2": ("bzip2", "archives that bzip2 has compressed"),
}
# What every system has: nobody needs to read that it is there.
_ESSENTIAL = {
    "cat": ("coreutils", "an archive from standard input"),
    "gzip": ("gzip", "compressed archives"),
}
_TOLD_LINES = 3
_LOGRUS_MESSAGE = re.compile(r'time="[^"]*" level=\w+ msg=("(?:[^"\\]|\\["\\nt])*")')


async def run(
    program: str,
    *words: str | Path,
    told: Callable[[str], None] | None = None,
    output: Path | None = None,
    stdin: int = asyncio.subprocess.DEVNULL,
) -> bytes:
    """Runs one of them to its end; killed with its caller.

    Args:
        program: its name.
        words: its arguments.
        told: is given each line of its output as it comes.
        output: a new file that its output goes to instead.
        stdin: a descriptor that it reads; nothing by default.

    Returns:
        Its output, empty when `told` or `output` got that.

    Raises:
        ImageError: it is missing, or has failed; with its last words.
    """
    found = path_of(program)
    with ExitStack() as files:
        target = (
            asyncio.subprocess.PIPE if output is None else files.enter_context(output.open("xb"))
        )
        process = await asyncio.create_subprocess_exec(
            found,
            *words,
            stdin=stdin,
            stdout=target,
            stderr=asyncio.subprocess.PIPE,
            env={**program_environment(), "LC_ALL": "C"},
            start_new_session=True,  # Ctrl-C is for us: we end it, and take away what it has left
        )
    try:
        text, errors = await asyncio.gather(
            _read(process.stdout, told), _read(process.stderr, None)
        )
        code = await process.wait()
    except BaseException:
        await end_child(process, is_leader=True)
        raise
    if code != 0:
        lines = [line for line in errors.decode(errors="replace").splitlines() if line.strip()]
        raise ImageError(
            f"{program} failed: {'; '.join(map(_message, lines[-_TOLD_LINES:])) or f'exit code {code}'}"
        )
    return text


def _message(line: str) -> str:
    """What a line of a log says, where it is one of logrus (https://github.com/sirupsen/logrus): `… msg="…"`."""
    found = _LOGRUS_MESSAGE.match(line)
    return str(json.loads(found[1], strict=False)) if found else line


async def _read(stream: asyncio.StreamReader | None, told: Callable[[str], None] | None) -> bytes:
    if stream is None:
        return b""
    if told is None:
        return await stream.read()
    async for line in stream:
        told(line.decode(errors="replace").strip())
    return b""


def path_of(program: str) -> str:
    """Where it is.

    Raises:
        ImageError: nowhere; names its package.
    """
    package, purpose = (_KNOWN | _ESSENTIAL)[program]
    found = find_program(program)
    if found is None:
        raise ImageError(
            f"{program} is not installed, which is needed for {purpose}; 'apt-get install {package}'"
        )
    return found


def installing(package: str) -> str:
    """The command that installs a package."""
    return f"apt-get install -y --no-install-recommends {package}"


def diagnose() -> list[Finding]:
    """Which of them are missing. Who uses no images needs none."""
    found = []
    for program, (package, purpose) in _KNOWN.items():
        try:
            found.append(Finding(program, Verdict.GOOD, path_of(program)))
        except ImageError:
            text = f"not installed; needed for {purpose}"
            found.append(
                Finding(
                    program,
                    Verdict.WARNING,
                    text,
                    f"apt-get install {package}",
                    installing(package),
                )
            )
    return found
