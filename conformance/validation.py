"""The programs of runtime-tools' validation: each makes bundles and runs a runtime on them.

https://github.com/opencontainers/runtime-tools; conformance/go.mod pins the version.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from conformance import runtimes
from conformance.building import go
from conformance.reports import Report, read

_MODULE = "github.com/opencontainers/runtime-tools"
_IN_CONTAINER = "runtimetest"
_ROOTFS = "rootfs-amd64.tar.gz"
_LIMIT_S = 300


def build(folder: Path) -> list[str]:
    """Builds the programs into a folder; returns their names.

    Raises:
        Unusable: there is no Go, or it fails.
    """
    folder.mkdir(parents=True, exist_ok=True)
    go("build", "-o", f"{folder}/", "tool")
    shutil.copy(Path(go("list", "-m", "-f", "{{.Dir}}", _MODULE)) / _ROOTFS, folder)
    return sorted(one.name for one in folder.iterdir() if one.name not in (_IN_CONTAINER, _ROOTFS))


@contextmanager
def runtime(name: str) -> Iterator[Path]:
    """Provides the command of a runtime with a root of its own.

    Raises:
        Unusable: it is not installed.
    """
    # A short path: those of sockets are limited.
    with tempfile.TemporaryDirectory(prefix="vc.") as folder:
        yield runtimes.command(name, Path(folder), "--root", f"{folder}/root")


def run(programs: Path, name: str, command: Path) -> Report:
    """Runs a program on a runtime, and deletes the containers that it leaves."""
    folder = Path(tempfile.mkdtemp(prefix="vc."))
    for file in (_IN_CONTAINER, _ROOTFS):
        shutil.copy(programs / file, folder)
    code: int | None
    try:
        done = subprocess.run(
            [programs / name],
            cwd=folder,
            env={**os.environ, "RUNTIME": str(command), "TMPDIR": str(folder)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=_LIMIT_S,
            check=False,
        )
        code, told = done.returncode, done.stdout
    except subprocess.TimeoutExpired as error:
        code, told = None, error.stdout or b""
    _delete_containers(command)
    _remove(folder)
    return read(told.decode(errors="replace"), code)


def _remove(folder: Path) -> None:
    """Removes a folder with the mounts that a runtime has left below it."""
    for line in reversed(Path("/proc/self/mountinfo").read_text().splitlines()):
        if (point := line.split()[4]).startswith(f"{folder}/"):
            subprocess.run(["umount", "--lazy", point], check=True)
    subprocess.run(["rm", "-rf", "--one-file-system", folder], check=True)


def _delete_containers(command: Path) -> None:
    done = subprocess.run([command, "list", "--quiet"], stdout=subprocess.PIPE, check=True)
    for container in done.stdout.decode().split():
        subprocess.run([command, "delete", "--force", container], check=False)
