"""Programs of this host for the guest, with the shared libraries they need."""

from __future__ import annotations

import shutil
from pathlib import Path

from vc_agent_grpc.image.errors import ImageError

_LIBRARY_FOLDERS = (
    "/lib/x86_64-linux-gnu",
    "/usr/lib/x86_64-linux-gnu",
    "/lib64",
    "/usr/lib64",
    "/lib",
    "/usr/lib",
)
_PROGRAM_PATH = "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin"


def find(name: str, package: str) -> Path:
    """Returns the path of a program.

    Raises:
        ImageError: it is missing; the message names the package.
    """
    found = shutil.which(name, path=_PROGRAM_PATH)
    if found is None:
        raise ImageError(
            f"{name} is missing; install the package {package} (apt-get install {package})"
        )
    return Path(found)


def with_libraries(program: Path) -> dict[str, bytes]:
    """Returns a program's loader and libraries.

    Args:
        program: an ELF executable.

    Returns:
        Path in the guest to content, without the program itself. Empty for a static program.

    Raises:
        ImageError: a library is missing.
    """
    files: dict[str, bytes] = {}
    waiting = [program]
    while waiting:
        current = waiting.pop()
        interpreter, needed = _links(current)
        if interpreter is not None:
            files[interpreter] = Path(interpreter).read_bytes()
        for name in needed:
            library = _library(name, current)
            target = f"/lib/{name}"
            if target not in files and Path(name).name != Path(interpreter or "").name:
                files[target] = library.read_bytes()
                waiting.append(library)
    return files


def _links(path: Path) -> tuple[str | None, list[str]]:
    from elftools.elf.dynamic import DynamicSection
    from elftools.elf.elffile import ELFFile
    from elftools.elf.segments import InterpSegment

    with path.open("rb") as stream:
        elf = ELFFile(stream)
        interpreters = [
            segment.get_interp_name()
            for segment in elf.iter_segments()
            if isinstance(segment, InterpSegment)
        ]
        dynamic = [
            section for section in elf.iter_sections() if isinstance(section, DynamicSection)
        ]
        needed = [
            str(vars(tag)["needed"])
            for section in dynamic
            for tag in section.iter_tags("DT_NEEDED")
        ]
    return (interpreters[0] if interpreters else None), needed


def _library(name: str, wanted_by: Path) -> Path:
    for folder in _LIBRARY_FOLDERS:
        candidate = Path(folder) / name
        if candidate.exists():
            return candidate
    raise ImageError(f"{wanted_by} needs {name}, which is in none of {', '.join(_LIBRARY_FOLDERS)}")
