"""Builds programs with Go, in the versions that a go.mod beside this file pins."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from pathlib import Path

_HERE = Path(__file__).parent


class Unusable(Exception):
    """The programs cannot be built or run here."""


def go(*words: str, module: str = ".") -> str:
    """Runs `go` in a module of this folder, and returns its output.

    Raises:
        Unusable: there is no Go, or it fails.
    """
    if shutil.which("go") is None:
        raise Unusable("go is not on the PATH; install Go as conformance/go.mod names it")
    environment = {**os.environ, "CGO_ENABLED": "0"}
    done = subprocess.run(
        ("go", *words), cwd=_HERE / module, env=environment, stdout=subprocess.PIPE, check=False
    )
    if done.returncode != 0:
        raise Unusable(f"go {shlex.join(words)} ended with {done.returncode}")
    return done.stdout.decode().strip()
