"""The files of the host that QEMU requires: its program, libraries, modules and firmware."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import re
import subprocess
from pathlib import Path

from msgspec import Struct, structs

from vc_core.driver_kit import opened_private_folder, program_environment
from vc_qemu.errors import QemuError

_LOADER_CACHE = "/etc/ld.so.cache"
_SETTING = "proof_dir of the hypervisor"
_SCHEMA = 1
_LIMIT_S = 20
_VERSION = r"version (\d+)\.(\d+)"


class Program(Struct, frozen=True):
    """The files and the version of a QEMU.

    Attributes:
        files: paths of files and folders, as the program names them.
        version: major and minor number.
    """

    files: tuple[str, ...]
    version: tuple[int, int]


def of_program(binary: str, folder: Path) -> Program:
    """Returns the files that a QEMU requires.

    Determined once for each program, and again when the host's libraries have changed.

    Args:
        binary: absolute path.
        folder: folder of stored results.

    Raises:
        QemuError: determining the files failed.
        InvalidRequest: the folder is not private to this user.
    """
    return _of_program(binary, folder, _key(binary))


@functools.lru_cache(maxsize=8)
def _of_program(binary: str, folder: Path, key: str) -> Program:
    name = f"files-{hashlib.sha256(key.encode()).hexdigest()[:16]}.json"
    with opened_private_folder(folder, _SETTING) as place:
        known = _read(place, name, key)
        if known is not None:
            return known
        found = _look(binary)
        half = f".{name}.{os.urandom(4).hex()}"
        handle = os.open(
            half,
            os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC,
            0o600,
            dir_fd=place,
        )
        with os.fdopen(handle, "w") as stream:
            json.dump({"key": key, **structs.asdict(found)}, stream)
        os.rename(half, name, src_dir_fd=place, dst_dir_fd=place)
        return found


def _key(binary: str) -> str:
    """Returns a key that changes with the program and with the list of the host's libraries."""
    real = os.path.realpath(binary)
    parts = [f"{_SCHEMA} {binary} {real}"]
    for path in (real, _LOADER_CACHE):
        try:
            about = Path(path).stat()
        except FileNotFoundError:
            continue
        parts.append(f"{about.st_ino} {about.st_size} {about.st_mtime_ns}")
    return " ".join(parts)


def _read(place: int, name: str, key: str) -> Program | None:
    """Returns the stored result, if all of its files still exist."""
    try:
        with os.fdopen(
            os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=place)
        ) as stream:
            told = json.load(stream)
        major, minor = told["version"]
        found = Program(tuple(map(str, told["files"])), (int(major), int(minor)))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return found if told["key"] == key and all(map(os.path.exists, found.files)) else None


def _look(binary: str) -> Program:
    version = re.search(_VERSION, _output(binary, "--version"))
    if version is None:
        raise QemuError(f"{binary} does not say its version; set hypervisor.qemu.jail to off")
    modules = _modules(Path(binary).resolve())
    libraries = [path for program in (binary, *map(str, modules)) for path in _libraries(program)]
    firmware = [
        os.path.normpath(line)
        for line in _output(binary, "-L", "help").splitlines()
        if line.startswith("/")
    ]
    if not libraries and b"ld-" in Path(binary).read_bytes()[:4096]:
        raise QemuError(
            f"the libraries of {binary} cannot be listed; set hypervisor.qemu.jail to off"
        )
    paths = [binary, _LOADER_CACHE, *libraries, *map(str, modules), *firmware]
    files = tuple(dict.fromkeys(path for path in paths if Path(path).exists()))
    return Program(files, (int(version[1]), int(version[2])))


def _modules(real: Path) -> list[Path]:
    """Returns the accelerators, which every machine requires; packaged beside QEMU's folder."""
    suffix = real.name.removeprefix("qemu-system-")
    prefix = real.parent.parent
    folders = {*prefix.glob("lib*/qemu"), *prefix.glob("lib/*/qemu")}
    return sorted(file for folder in folders for file in folder.glob(f"accel-*-{suffix}.so"))


def _libraries(program: str) -> list[str]:
    """Returns the files that the dynamic loader would load: ld.so(8), LD_TRACE_LOADED_OBJECTS."""
    loader = _loader(program)
    command = [loader, "--list", program] if loader else [program, "--version"]
    told = _output(*command, LD_TRACE_LOADED_OBJECTS="1")
    paths = []
    for line in told.splitlines():
        words = line.split()
        if "not" in words and "found" in words:
            raise QemuError(f"{program} lacks a library: {line.strip()}; install QEMU again")
        paths += [word for word in words if word.startswith("/")][:1]
    return paths


def _loader(program: str) -> str:
    """Returns the dynamic loader of this process, for modules, which are not executable."""
    if os.access(program, os.X_OK):
        return ""
    maps = Path("/proc/self/maps").read_text().split()
    return next((word for word in maps if Path(word).name.startswith("ld-")), "")


def _output(*command: str, **environment: str) -> str:
    try:
        return subprocess.run(
            command,
            capture_output=True,
            text=True,
            check=False,
            cwd="/",
            env={**program_environment(), **environment},
            timeout=_LIMIT_S,
        ).stdout
    except (OSError, subprocess.TimeoutExpired) as error:
        raise QemuError(
            f"{command[0]} cannot be asked for its files: {error}; set hypervisor.qemu.jail to off"
        ) from error
