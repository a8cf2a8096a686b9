"""Every distribution as a wheel, and an environment in which nothing of the checkout can
be seen.
"""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MEMBERS = (
    ".",
    "plugins/qemu",
    "plugins/libvirt",
    "plugins/agent_grpc",
    "plugins/storage_fs",
    "plugins/devices",
    "plugins/network",
    "plugins/observers",
    "plugins/runtime",
)
ACME = "examples/acme_hypervisor"
NOBODY = 65534


def run(*words: str | Path, cwd: Path | None = None) -> str:
    done = subprocess.run(
        [str(word) for word in words], capture_output=True, text=True, check=False, cwd=cwd
    )
    assert done.returncode == 0, (words, done.stdout[-3000:], done.stderr[-3000:])
    return done.stdout


@pytest.fixture(scope="session")
def place() -> Iterator[Path]:
    """A folder that everybody may enter, which pytest's own are not."""
    with tempfile.TemporaryDirectory(prefix="vc-packaging-", dir="/var/tmp") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.fixture(scope="session")
def wheels(place) -> Path:
    """Built from a copy: a build leaves nothing in the checkout, and what git does not know is not
    in it.
    """
    source = place / "source"
    files = run(
        "git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", cwd=ROOT
    ).split("\0")
    for name in filter(None, files):
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, source / name)
    run("make", "wheels", f"PY={sys.executable}", "WHEEL_OPTIONS=--no-build-isolation", cwd=source)
    shutil.copytree(source / ".make/wheels", place / "wheels")
    acme = (
        sys.executable,
        "-m",
        "build",
        "--wheel",
        "--no-isolation",
        "--outdir",
        place / "wheels",
        source / ACME,
    )
    run(*acme)
    return place / "wheels"


@pytest.fixture(scope="session")
def environment(place, wheels) -> Path:
    """An environment in which nothing of the checkout can be seen, made by the line that the README
    has, as it is.
    """
    venv = place / "venv"
    run("/usr/bin/python3", "-m", "venv", venv)
    (line,) = re.findall(
        r"^pip (install --find-links \.make/wheels .*)$",
        (ROOT / "README.md").read_text(),
        re.MULTILINE,
    )
    run(venv / "bin/pip", *shlex.split(line), cwd=place / "source")
    return venv
