"""Real virtual machines: a configuration of the test's own, `vc` as a user types it, and a look for what is left."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from vc_core.config import Config, parse
from vc_core.engine.runtime import Runtime

VC = [sys.executable, "-m", "vc_core"]
GUESTS = Path("/var/cache/virtcontainers/guest/current")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.vm)


@pytest.fixture(scope="session", autouse=True)
def _can_boot() -> None:
    if shutil.which("qemu-system-x86_64") is None:
        pytest.skip("qemu-system-x86_64 is not installed (the package qemu-system-x86)")
    if not GUESTS.exists():
        pytest.skip("no guest image has been built ('vc guest build')")


@dataclass
class Host:
    """The user's side of a test."""

    folder: Path
    config_file: Path
    environment: dict[str, str] = field(default_factory=dict)

    def vc(self, *args: str, stdin: bytes = b"", check: int | None = 0) -> subprocess.CompletedProcess[bytes]:
        """Types a command; fails the test when it exits otherwise than expected."""
        done = subprocess.run(
            [*VC, *args], input=stdin, capture_output=True, timeout=240, env=self._environment(), check=False
        )
        if check is not None:
            assert done.returncode == check, (args, done.returncode, done.stdout, done.stderr.decode())
        return done

    def start(self, *args: str, **options: object) -> subprocess.Popen[bytes]:
        """Types a command and does not wait."""
        return subprocess.Popen([*VC, *args], env=self._environment(), **options)  # type: ignore[call-overload]

    def _environment(self) -> dict[str, str]:
        return {**os.environ, "VC_CONFIG": str(self.config_file), **self.environment}

    @property
    def config(self) -> Config:
        return parse(self.config_file.read_text(), self.config_file)

    def runtime(self) -> Runtime:
        return Runtime.open(self.config)

    def machines(self) -> list[int]:
        """Processes of QEMU whose files lie in our folder."""
        return [
            pid for pid, words in processes() if words and "qemu" in words[0] and str(self.folder) in " ".join(words)
        ]

    def residue(self) -> list[str]:
        """What is left of pods: processes, mounts, files, sockets."""
        mounts = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
        roots = [self.folder / name for name in ("run/pods", "run/locks", "config/pods")]
        return [
            *(f"process {pid}" for pid in self.machines()),
            *(f"mount {mount}" for mount in mounts if mount.startswith(str(self.folder))),
            *(f"file {path}" for root in roots if root.is_dir() for path in root.iterdir()),
        ]


def processes() -> Iterator[tuple[int, list[str]]]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
            except (FileNotFoundError, ProcessLookupError):
                continue
            yield int(entry.name), words


def host_config(folder: Path, templates: Path | None = None) -> Path:
    """A configuration whose store lies in a folder, and its templates there or in one of their own."""
    config = folder / "config.toml"
    config.write_text(
        f"[template]\ndir = '{templates or folder / 'templates'}'\n"
        f"[storage.fs]\nrun_root = '{folder}/run'\nconfig_root = '{folder}/config'\n"
        "[hypervisor.qemu]\nproof_dir = '/run/virtcontainers/qemu'\n"
    )
    return config


@pytest.fixture(scope="session")
def templates() -> Iterator[Path]:
    """What the pods of all tests are cloned from: made once, as for any user."""
    folder = Path(tempfile.mkdtemp(prefix="vc-tests-", dir="/dev/shm"))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def host(tmp_path, templates) -> Iterator[Host]:
    """A host with a store of its own; the test fails when something of a pod is left at its end."""
    found = Host(tmp_path, host_config(tmp_path, templates))
    yield found
    left = found.residue()
    for name in sorted((tmp_path / "config/pods").glob("[!.]*")):
        found.vc("pod", "delete", "--force", name.name, check=None)
    for pid in found.machines():
        os.kill(pid, 9)
    assert left == []


@pytest.fixture
def busybox(tmp_path) -> Path:
    """A root file system of one static program."""
    static = shutil.which("busybox")
    if static is None:
        pytest.skip("busybox is not installed (the package busybox-static)")
    root = tmp_path / "busybox"
    for name in ("bin", "etc", "proc", "sys", "dev", "tmp"):
        (root / name).mkdir(parents=True)
    shutil.copy(static, root / "bin/busybox")
    names = ("sh", "cat", "echo", "id", "ls", "sleep", "true", "uname", "touch", "pwd", "env", "ps", "hostname")
    for name in (*names, "mount", "stat", "dd", "grep", "nproc", "tail", "head", "kill", "chmod", "readlink", "df"):
        (root / "bin" / name).symlink_to("busybox")
    (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\nnina:x:1234:5678:Nina:/home/nina:/bin/sh\n")
    (root / "etc/group").write_text("root:x:0:\nstaff:x:5678:\nextra:x:4321:nina\n")
    return root


@pytest.fixture
def ext4(busybox, tmp_path) -> Path:
    """The same root file system in an image, and once more below the folder `rootfs` of it."""
    tree, image = tmp_path / "tree", tmp_path / "root.ext4"
    shutil.copytree(busybox, tree, symlinks=True)
    shutil.copytree(busybox, tree / "rootfs", symlinks=True)
    subprocess.run(["truncate", "--size", "48M", image], check=True)
    subprocess.run(["mkfs.ext4", "-q", "-d", tree, image], check=True)
    return image


@pytest.fixture
def loop(host) -> Iterator[Callable[[Path], Path]]:
    """Makes loop devices of images."""
    made: list[str] = []

    def attach(image: Path) -> Path:
        command = ["losetup", "--find", "--show", image]
        made.append(subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip())
        return Path(made[-1])

    yield attach
    for device in made:
        subprocess.run(["losetup", "--detach", device], check=True)


@pytest.fixture
def mounted(loop, tmp_path) -> Iterator[Callable[[Path, str], tuple[Path, Path]]]:
    """Mounts images; gives the loop device and the mount point."""
    points: list[Path] = []

    def mount(image: Path, options: str = "rw", name: str = "mounted") -> tuple[Path, Path]:
        device, point = loop(image), tmp_path.parent / f"{tmp_path.name}-{name}"
        point.mkdir()
        subprocess.run(["mount", "-o", options, device, point], check=True)
        points.append(point)
        return device, point

    yield mount
    for point in points:
        subprocess.run(["umount", point], check=True)
        point.rmdir()
