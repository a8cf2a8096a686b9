"""Real virtual machines: a configuration of the test's own, `vc` as a user types it, and a look for
what is left.
"""

from __future__ import annotations

import asyncio
import functools
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.e2e.libvirtd import Libvirtd
from vc_core.cli.render import plain
from vc_core.config import Config, parse
from vc_core.engine.api.runtime import Runtime
from vc_core.engine.wiring.catalog import Catalog
from vc_core.spec import Capability, PodRef

# What Python warns of (a coroutine that nobody awaited, a file that nobody closed) is an error that
# is printed.
VC = [sys.executable, "-P", "-W", "error", "-m", "vc_core"]
GUESTS = Path("/var/cache/virtcontainers/guest/current")
HYPERVISORS = ("qemu", "libvirt")

Settings = dict[str, dict[str, object]]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.vm)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Every test that has a host runs with each hypervisor, but for those that lack what it needs.

    What is about the guest's agent or the engine alone is marked as that of one: a boot takes
    seconds here.
    """
    if "hypervisor" not in metafunc.fixturenames:
        return
    only = metafunc.definition.get_closest_marker("only")
    needed = {
        Capability(word) for mark in metafunc.definition.iter_markers("needs") for word in mark.args
    }
    able = [name for name in (only.args if only else HYPERVISORS) if needed <= capabilities(name)]
    metafunc.parametrize("hypervisor", able, scope="session", indirect=True)


@functools.cache
def capabilities(hypervisor: str) -> frozenset[Capability]:
    """What it declares, as it is configured here."""
    found = Catalog().find("hypervisor", hypervisor).factory
    driver = found(found.options_type())
    return asyncio.run(driver.vm_capabilities(PodRef(id="any", run_dir=Path("/tmp"))))


@pytest.fixture(scope="session", autouse=True)
def _can_boot() -> None:
    if shutil.which("qemu-system-x86_64") is None:
        pytest.skip("qemu-system-x86_64 is not installed (the package qemu-system-x86)")
    if not GUESTS.exists():
        pytest.skip("no guest image has been built ('vc guest build')")


@pytest.fixture(scope="session")
def libvirtd(tmp_path_factory, templates) -> Iterator[Libvirtd]:
    """A libvirtd of our own, from the first test that wants one."""
    for program, package in (("libvirtd", "libvirt-daemon"), ("virtlogd", "libvirt-daemon")):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed (the package {package})")
    folder = Path(tempfile.mkdtemp(prefix="vc-libvirt-", dir="/tmp"))
    found = Libvirtd(folder, [tmp_path_factory.getbasetemp()])
    yield found
    found.end()
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def hypervisor(request) -> Settings:
    """Which one: what the configuration says of it.

    By that alone the tests change from one to another.
    """
    if request.param == "qemu":
        return {}
    if request.param != "libvirt":
        return {"use": {"hypervisor": request.param}}
    libvirtd = request.getfixturevalue("libvirtd")
    own = {"uri": libvirtd.uri, "log_dir": str(libvirtd.log_dir)}
    return {"use": {"hypervisor": "libvirt"}, "hypervisor.libvirt": own}


@dataclass
class Host:
    """The user's side of a test."""

    folder: Path
    settings: Settings
    environment: dict[str, str] = field(default_factory=dict)
    started: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._write()

    def configure(self, table: str, **values: object) -> None:
        """Changes settings; the table "hypervisor" is that of the one in use."""
        if table == "hypervisor":
            table = f"hypervisor.{self.hypervisor}"
        self.settings.setdefault(table, {}).update(values)
        self._write()

    def _write(self) -> None:
        lines = []
        for table, values in self.settings.items():
            lines += [f"[{table}]", *(f"{key} = {plain(value)}" for key, value in values.items())]
        self.config_file.write_text("\n".join(lines) + "\n")

    @property
    def config_file(self) -> Path:
        """Where its configuration lies."""
        return self.folder / "config.toml"

    @property
    def hypervisor(self) -> str:
        """Its name."""
        return str(self.settings.get("use", {}).get("hypervisor", "qemu"))

    def sockets(self, pod: str) -> set[str]:
        """Of channels: what a pod's machine has of its own does not count."""
        return {path.name for path in (self.folder / "run/pods" / pod).glob("*.sock")} - {
            "qmp.sock"
        }

    def vc(
        self, *args: str, stdin: bytes = b"", check: int | None = 0
    ) -> subprocess.CompletedProcess[bytes]:
        """Types a command; fails the test when it exits otherwise than expected."""
        done = subprocess.run(
            [*VC, *args],
            input=stdin,
            capture_output=True,
            timeout=240,
            env=self.environ(),
            check=False,
        )
        assert b"Warning" not in done.stderr, (args, done.stderr.decode())
        assert b"Exception ignored" not in done.stderr, (args, done.stderr.decode())
        if check is not None:
            assert done.returncode == check, (
                args,
                done.returncode,
                done.stdout,
                done.stderr.decode(),
            )
        return done

    def start(self, *args: str, **options: object) -> subprocess.Popen[bytes]:
        """Types a command and does not wait."""
        process = subprocess.Popen([*VC, *args], env=self.environ(), **options)  # type: ignore[call-overload]
        self.started.append(process)
        return process

    def environ(self) -> dict[str, str]:
        """Returns the environment of a program that uses its pods, with a fixed terminal."""
        kept = {
            name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")
        }
        return {
            **kept,
            "TERM": "xterm-256color",
            "VC_CONFIG": str(self.config_file),
            **self.environment,
        }

    @property
    def config(self) -> Config:
        return parse(self.config_file.read_text(), self.config_file)

    def runtime(self) -> Runtime:
        return Runtime.open(self.config)

    def machines(self) -> list[int]:
        """Processes of machines whose files lie in our folder."""
        return [
            pid
            for pid, words in processes()
            if words
            and ("qemu" in words[0] or "--sandbox" in words)
            and str(self.folder) in " ".join(words)
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


def new_host(folder: Path, hypervisor: Settings, templates: Path | None = None) -> Host:
    """A host whose store lies in a folder, and its templates there or in one of their own."""
    settings = {
        "template": {"dir": templates or folder / "templates"},
        "snapshot": {"dir": folder / "snapshots"},
        "image": {"dir": folder / "images"},
        "data": {"dir": folder / "lasting"},
        "volume": {"dir": folder / "volumes"},
        "storage.fs": {"run_root": folder / "run", "config_root": folder / "config"},
    }
    return Host(
        folder, {**settings, **{table: dict(values) for table, values in hypervisor.items()}}
    )


@pytest.fixture(scope="session")
def templates() -> Iterator[Path]:
    """What the pods of all tests are cloned from: made once, as for any user."""
    folder = Path(tempfile.mkdtemp(prefix="vc-tests-", dir="/dev/shm"))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def host(tmp_path, templates, hypervisor) -> Iterator[Host]:
    """A host with a store of its own; the test fails when something of a pod is left at its end."""
    found = new_host(tmp_path, hypervisor, templates)
    yield found
    for process in found.started:  # of a test that failed: the next one must not be blamed for it
        with process:  # which closes its pipes, and waits
            process.kill()
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
    names = (
        "sh",
        "cat",
        "echo",
        "id",
        "ls",
        "sleep",
        "true",
        "uname",
        "touch",
        "pwd",
        "env",
        "ps",
        "hostname",
    )
    for name in (
        *names,
        "mount",
        "stat",
        "dd",
        "grep",
        "nproc",
        "tail",
        "head",
        "kill",
        "chmod",
        "readlink",
        "df",
    ):
        (root / "bin" / name).symlink_to("busybox")
    (root / "etc/passwd").write_text(
        "root:x:0:0:root:/root:/bin/sh\nnina:x:1234:5678:Nina:/home/nina:/bin/sh\n"
    )
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
        made.append(
            subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
        )
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
