"""The commands of runtimes, each with settings of its own."""

from __future__ import annotations

import shlex
import shutil
import sys
from pathlib import Path

from conformance.building import Unusable

OURS = "vc-runtime"
_HYBRID = Path("/sys/fs/cgroup/unified/cgroup.controllers")


def command(name: str, folder: Path, *more: str) -> Path:
    """Writes a program that runs a runtime with more words, and returns its path.

    Args:
        name: of the runtime.
        folder: gets the program and what vc-runtime stores; its path is short, as those of
            sockets are limited.
        more: the first words of the command line.

    Raises:
        Unusable: it is not installed.
    """
    program = Path(sys.executable).with_name(name) if name == OURS else shutil.which(name)
    if program is None:
        raise Unusable(f"{name} is not on the PATH")
    settings = folder / "config.toml"
    settings.write_text(
        f'[storage.fs]\nconfig_root = "{folder}/store"\nrun_root = "{folder}/run"\n'
    )
    words = [str(program), *more]
    if name == "crun" and _HYBRID.exists():  # it refuses such hosts, whatever is in the file
        hide = f'mount --bind /dev/null {_HYBRID} && exec "$0" "$@"'
        words = ["unshare", "--mount", "sh", "-c", hide, *words]
    file = folder / "runtime"
    file.write_text(
        f'#!/bin/sh\nexport VC_CONFIG={shlex.quote(str(settings))}\nexec {shlex.join(words)} "$@"\n'
    )
    file.chmod(0o755)
    return file
