"""podman and containerd with files of their own, which run `vc-runtime`; and that command typed."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.e2e.conftest import Host

IMAGE = "localhost/busybox:1"
_DEADLINE_S = 240
Done = subprocess.CompletedProcess[bytes]


def wrapper(host: Host, python: str = sys.executable) -> Path:
    """Writes a program that is vc-runtime with the test's configuration: engines pass none on."""
    file = host.folder / "vc-runtime"
    file.write_text(
        f"#!/bin/sh\nexport VC_CONFIG={shlex.quote(str(host.config_file))}\n"
        f'exec {shlex.quote(python)} -P -m vc_runtime "$@"\n'
    )
    file.chmod(0o755)
    return file


def run(*words: str | Path, stdin: bytes = b"", check: int | None = 0, **more: object) -> Done:
    """Types a command; fails the test when it exits otherwise than expected."""
    done = subprocess.run(
        [str(word) for word in words],
        input=stdin,
        capture_output=True,
        timeout=_DEADLINE_S,
        check=False,
        **more,
    )
    if check is not None:
        assert done.returncode == check, (words, done.returncode, done.stdout, done.stderr)
    return done


@dataclass
class Podman:
    """podman whose files lie in a folder, in a network namespace of its own."""

    folder: Path
    environment: dict[str, str]
    entering: Sequence[str]

    def __call__(self, *words: str, stdin: bytes = b"", check: int | None = 0) -> Done:
        """Types a command."""
        return run(*self.command(*words), stdin=stdin, check=check, env=self.environment)

    def text(self, *words: str) -> str:
        """Returns the output of a command that must succeed."""
        return self(*words).stdout.decode().strip()

    def command(self, *words: str) -> list[str]:
        """Returns the whole command line."""
        own = ("--tmpdir", f"{self.folder}/tmp", "--network-config-dir", f"{self.folder}/net")
        return [*self.entering, "podman", *own, *words]

    def record(self, name: str) -> dict[str, object]:
        """Returns what vc-runtime has recorded of a container."""
        found = self.text("inspect", "-f", "{{.ID}}", name)
        return json.loads((Path("/run/vc-runtime") / found / "container.json").read_text())


def configured(host: Host, folder: Path) -> dict[str, str]:
    """Writes podman's configuration into a folder; returns its environment."""
    (folder / "containers.conf").write_text(
        "[containers]\n"
        'default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]\n'
        "[engine]\n"
        'cgroup_manager = "cgroupfs"\nevents_logger = "file"\nlock_type = "file"\n'
        f'runtime = "vc"\ninfra_image = "{IMAGE}"\n'
        f'[engine.runtimes]\nvc = ["{wrapper(host)}"]\n'
    )
    (folder / "storage.conf").write_text(
        f'[storage]\ndriver = "vfs"\ngraphroot = "{folder}/root"\nrunroot = "{folder}/run"\n'
    )
    return {
        **os.environ,
        "CONTAINERS_CONF": str(folder / "containers.conf"),
        "CONTAINERS_STORAGE_CONF": str(folder / "storage.conf"),
        "DISABLE_HC_SYSTEMD": "true",
    }


@contextmanager
def with_image(found: Podman, root: Path) -> Iterator[Podman]:
    """Gives podman one image, and removes all its containers at the end."""
    archive = run("tar", "-C", root, "-c", ".").stdout
    # The command of infra containers, whose image this is, too.
    changes = ('CMD ["/bin/sleep", "100000"]', "ENV PATH=/bin")
    words = [word for change in changes for word in ("--change", change)]
    found("import", *words, "-", IMAGE, stdin=archive)
    yield found
    found("pod", "rm", "--all", "--force", "--time", "0")
    found("rm", "--all", "--force", "--time", "0")


@contextmanager
def podman(host: Host, root: Path) -> Iterator[Podman]:
    """Provides podman with one image, and removes all its containers at the end."""
    folder = host.folder / "podman"
    folder.mkdir()
    environment = configured(host, folder)
    keeper = ("unshare", "--net", "sh", "-c", "ip link set lo up && echo ready; exec sleep 100000")
    with subprocess.Popen(keeper, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            entering = ("nsenter", f"--net=/proc/{process.pid}/ns/net")
            with with_image(Podman(folder, environment, entering), root) as found:
                yield found
            leave_groups("libpod_parent")
        finally:
            process.kill()


@contextmanager
def containerd(host: Host, image: Path) -> Iterator[list[str]]:
    """Provides the beginning of ctr's command line, for a containerd with one image."""
    folder = host.folder / "containerd"
    folder.mkdir()
    socket = folder / "s"
    (folder / "config.toml").write_text(
        f'version = 2\nroot = "{folder}/root"\nstate = "{folder}/state"\n'
        'disabled_plugins = ["io.containerd.grpc.v1.cri"]\n'
        f'[grpc]\naddress = "{socket}"\n'
    )
    words = ("containerd", "--config", folder / "config.toml")
    environment = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(words, stdout=log, stderr=log, env=environment)
    ctr = ["ctr", "--address", str(socket)]
    try:
        wait_until(lambda: run(*ctr, "version", check=None).returncode == 0)
        run(*ctr, "images", "import", "--snapshotter", "native", image)
        yield ctr
    finally:
        process.terminate()
        process.wait(_DEADLINE_S)
        for mount in reversed(Path("/proc/self/mountinfo").read_text().splitlines()):
            if (point := mount.split()[4]).startswith(f"{folder}/"):
                run("umount", point)
        shutil.rmtree(folder)
        leave_groups("default")  # of containerd's namespace


def groups(folder: Path) -> list[Path]:
    """Returns the control groups of a container, of which vc-runtime has written in a folder."""
    path = json.loads((folder / "group.json").read_text())
    return [one for one in Path("/sys/fs/cgroup").glob(f"*/{path}") if path]


def leave_groups(name: str) -> None:
    """Removes empty control groups that an engine makes and leaves."""
    for group in Path("/sys/fs/cgroup").glob(f"*/{name}"):
        for folder in (*group.glob("*/"), group):
            with contextlib.suppress(OSError):  # in use by another program
                folder.rmdir()


def wait_until(is_so: object, what: str = "it") -> None:
    """Asks again until something is so, of which nobody tells."""
    until = time.monotonic() + _DEADLINE_S
    while not is_so():  # type: ignore[operator]
        assert time.monotonic() < until, f"{what} is not so after {_DEADLINE_S} s"
        time.sleep(0.1)
