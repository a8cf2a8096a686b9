"""Builds the Rust programs from their source, which is part of this distribution.

vc-agent runs in guests, vc-stand-in on the host.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

from vc_agent_grpc.image.cache import AGENT, STAND_IN
from vc_agent_grpc.image.errors import ImageError
from vc_core.driver_kit import find_program, program_environment
from vc_core.driver_kit.ownership import readable_folder

OLDEST_RUST = (1, 88)
TARGET = "x86_64-unknown-linux-gnu"
_OPTIONS_S = 10.0
_VERSION = r"cargo (\d+)\.(\d+)"


def source() -> tuple[Path, Path]:
    """Returns the cargo project and the .proto file.

    They are beside this package in a wheel, and above it in a checkout.
    """
    package = Path(__file__).resolve().parent.parent
    for base in (package / "_agent", package.parent.parent):
        if (base / "guest/Cargo.toml").is_file():
            return base / "guest", base / "proto/agent.proto"
    raise ImageError(
        "the agent's source is missing from this installation; reinstall virtcontainers-agent-grpc"
    )


def source_digest() -> str:
    """Returns a digest of all sources of the agent."""
    project, proto = source()
    files = [
        proto,
        *(project / name for name in ("Cargo.toml", "Cargo.lock", "build.rs")),
        *project.glob("src/**/*.rs"),
    ]
    digest = hashlib.sha256()
    for file in sorted(files):
        digest.update(
            str(file.relative_to(project.parent)).encode() + b"\0" + file.read_bytes() + b"\0"
        )
    return digest.hexdigest()[:16]


def built(cache: Path, report: Callable[[str], None]) -> Path:
    """Returns the folder of the programs; builds them when the cache has none of this source.

    Raises:
        ImageError: no cargo is recent enough, or the build failed.
    """
    folder = cache / "agent" / source_digest()
    if all((folder / name).is_file() for name in (AGENT, STAND_IN)):
        return folder
    cargo = find_cargo()
    report(f"building the guest agent with {cargo} (minutes, the first time)")
    project, proto = source()
    target = readable_folder(cache / "agent") / "target"
    command = [
        str(cargo),
        "build",
        "--release",
        "--locked",
        "--target",
        TARGET,
        "--manifest-path",
        str(project / "Cargo.toml"),
    ]
    environment = {
        **program_environment(),
        "CARGO_TARGET_DIR": str(target),
        "VC_AGENT_PROTO": str(proto),
        "RUSTFLAGS": "-C target-feature=+crt-static",
    }
    done = subprocess.run(
        command,
        env=environment,
        cwd="/",  # cargo and rustup read configuration files of the current folder
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise ImageError(f"the guest agent cannot be built:\n{done.stderr.strip()}")
    readable_folder(folder)
    for name in (AGENT, STAND_IN):
        half = folder / f"{name}.{os.getpid()}"
        shutil.copy2(target / TARGET / "release" / name, half)
        half.chmod(0o755)
        half.replace(folder / name)
    return folder


def stand_in_options(program: Path) -> list[str]:
    """Returns the names of the options that a stand-in takes; none for one that tells nothing.

    Raises:
        ImageError: it cannot be executed.
    """
    if not program.exists():
        return []
    try:
        done = subprocess.run(
            [program, "--options"],
            env=program_environment(),
            cwd="/",
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_OPTIONS_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ImageError(f"{program} cannot be used: {error}") from error
    return done.stdout.split() if done.returncode == 0 else []


def find_cargo() -> Path:
    """Returns the first cargo on the path (or $CARGO) that is recent enough.

    Raises:
        ImageError: there is none; the message names what was found and the packages to install.
    """
    too_old = []
    for name in (os.environ.get("CARGO", ""), "cargo", "/usr/bin/cargo"):
        found = find_program(name)
        if found is None:
            continue
        version = subprocess.run(
            [found, "--version"],
            capture_output=True,
            text=True,
            check=False,
            cwd="/",
            env=program_environment(),
        ).stdout
        match = re.match(_VERSION, version)
        if match and (int(match[1]), int(match[2])) >= OLDEST_RUST:
            return Path(found)
        too_old.append(f"{found} is {version.strip() or 'broken'}")
    found_text = f" ({'; '.join(too_old)})" if too_old else ""
    oldest = ".".join(map(str, OLDEST_RUST))
    raise ImageError(
        f"cargo {oldest} or newer is missing{found_text}; "
        "install the packages cargo-web and rustc-web"
    )
