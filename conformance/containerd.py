"""A containerd with files, mounts and a network of its own, whose images come from loopback."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from conformance import images, runtimes
from conformance.building import Unusable, go

_REGISTRY = "127.0.0.1:5000"
_HOST = "registry.k8s.io"
_LIMIT_S = 60.0
OWN_FOLDERS = ("/run/containerd", "/run/netns")
_CNI = "/usr/lib/cni"
DEBIAN = "debian"
PINNED = "pinned"
VERSIONS = (DEBIAN, PINNED)


@dataclass(frozen=True)
class Engine:
    """A running containerd.

    Attributes:
        endpoint: its address, for clients of CRI.
        enter: words before a command that has to be in its namespaces.
        version: what it says of itself.
        folder: has all its files, and those of the runtimes.
        keeper: pid of the process that keeps its namespaces.
    """

    endpoint: str
    enter: Sequence[str]
    version: str
    folder: Path
    keeper: int


def build(version: str, folder: Path) -> Path | None:
    """Returns the folder of its programs, built from the pinned modules; None for Debian's.

    Raises:
        Unusable: it cannot be built, or is not installed.
    """
    needed = ("docker-registry", "skopeo", "ipcmk", *(["containerd"] * (version == DEBIAN)))
    for program in needed:
        if shutil.which(program) is None:
            raise Unusable(f"{program} is not on the PATH")
    if version == DEBIAN:
        return None
    folder.mkdir(parents=True, exist_ok=True)
    go("build", "-o", f"{folder}/", "tool", module="containerd")
    return folder


@contextmanager
def running(programs: Path | None, client: Path, handlers: Sequence[str]) -> Iterator[Engine]:
    """Provides containerd with handlers of these names, each a runtime, and the images.

    Args:
        programs: what `build` has returned.
        client: crictl, which removes the pods that are left at the end.
        handlers: names of runtimes.

    Raises:
        Unusable: it does not start.
    """
    with ExitStack() as undo:
        # A short path: those of sockets are limited.
        folder = Path(undo.enter_context(tempfile.TemporaryDirectory(prefix="vc.")))
        undo.callback(_unmount_below, folder)
        undo.callback(_remove_groups)
        keeper = undo.enter_context(_namespaces())
        enter = ("nsenter", f"--target={keeper}", "--mount", "--net")
        _start_registry(folder, enter, undo)
        images.push(_REGISTRY, enter)
        commands = {}
        for name in handlers:
            (folder / name).mkdir()
            commands[name] = runtimes.command(name, folder / name)
        settings = _write_settings(folder, commands, is_pinned=programs is not None)
        path = os.environ["PATH"] if programs is None else f"{programs}:{os.environ['PATH']}"
        log = undo.enter_context((folder / "log").open("wb"))
        process = subprocess.Popen(
            [*enter, "env", "-i", f"PATH={path}", "HOME=/root", "containerd", "--config", settings],
            stdout=log,
            stderr=log,
        )
        undo.callback(_end, process)
        control = (*enter, "env", f"PATH={path}", "ctr", "--address", f"{folder}/s", "version")
        version = _answer(process, control, folder / "log")
        endpoint = f"unix://{folder}/s"
        undo.callback(_remove_pods, (*enter, client, "--runtime-endpoint", endpoint))
        said = re.findall(r"Version: +(\S+)", version)[-1]
        yield Engine(endpoint, enter, said, folder, keeper)


def _remove_pods(client: Sequence[str | Path]) -> None:
    """Removes pods that a test has left, with their containers."""
    subprocess.run([*client, "rmp", "--all", "--force"], stdout=subprocess.DEVNULL, check=True)


@contextmanager
def _namespaces() -> Iterator[int]:
    """Provides the pid of a process in namespaces in which all mounts are shared, and loopback is
    up.
    """
    mounts = "".join(f" && mkdir -p {one} && mount -t tmpfs tmpfs {one}" for one in OWN_FOLDERS)
    script = f"ip link set lo up && mount --make-rshared /{mounts} && echo ready && exec cat"
    words = ("unshare", "--net", "--mount", "--propagation", "private", "sh", "-c", script)
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as keeper:
        assert keeper.stdout is not None
        if keeper.stdout.readline() != b"ready\n":
            raise Unusable("this user cannot make namespaces: run it as root")
        yield keeper.pid
        keeper.communicate()  # ends it


def _start_registry(folder: Path, enter: Sequence[str], undo: ExitStack) -> None:
    settings = folder / "registry.json"  # which is YAML, too
    document = {
        "version": 0.1,
        "log": {"level": "error"},
        "storage": {"filesystem": {"rootdirectory": f"{folder}/registry"}},
        "http": {"addr": _REGISTRY},
    }
    settings.write_text(json.dumps(document))
    log = undo.enter_context((folder / "registry.log").open("wb"))
    process = subprocess.Popen(
        [*enter, "docker-registry", "serve", settings], stdout=log, stderr=log
    )
    undo.callback(_end, process)
    ask = ("busybox", "wget", "-q", "-O", "/dev/null", f"http://{_REGISTRY}/v2/")
    _answer(process, (*enter, *ask), folder / "registry.log")


def _answer(process: subprocess.Popen[bytes], words: Sequence[str], log: Path) -> str:
    """Asks a server that has been started until it answers."""
    until = time.monotonic() + _LIMIT_S
    while time.monotonic() < until and process.poll() is None:
        done = subprocess.run(words, capture_output=True, check=False)
        if done.returncode == 0:
            return done.stdout.decode()
        time.sleep(0.1)
    told = log.read_text(errors="replace").splitlines()
    raise Unusable("\n".join(["a server does not start:", *told[-5:]]))


def _write_settings(folder: Path, commands: dict[str, Path], is_pinned: bool) -> Path:
    (folder / "net.d").mkdir()
    (folder / "net.d/10-conformance.conflist").write_text(json.dumps(_network(folder / "ipam")))
    (folder / "certs.d/_default").mkdir(parents=True)
    (folder / "certs.d/_default/hosts.toml").write_text(
        f'server = "http://{_REGISTRY}"\n'
        f'[host."http://{_REGISTRY}"]\ncapabilities = ["pull", "resolve"]\n'
    )
    certificates, pause = f'config_path = "{folder}/certs.d"', f"{_HOST}/{images.PAUSE}"
    if is_pinned:
        cri, bins = "io.containerd.cri.v1.runtime", f'bin_dirs = ["{_CNI}"]'
        lines = [
            "version = 3",
            'disabled_plugins = ["io.containerd.nri.v1.nri"]',
            f'[ttrpc]\naddress = "{folder}/s.ttrpc"',
            f'[plugins."io.containerd.cri.v1.images".pinned_images]\nsandbox = "{pause}"',
            f'[plugins."io.containerd.cri.v1.images".registry]\n{certificates}',
            f'[plugins."{cri}"]\nrestrict_oom_score_adj = true',
        ]
    else:
        cri, bins = "io.containerd.grpc.v1.cri", f'bin_dir = "{_CNI}"'
        lines = [
            "version = 2",
            f'[plugins."{cri}"]\nsandbox_image = "{pause}"\nrestrict_oom_score_adj = true',
            f'[plugins."{cri}".registry]\n{certificates}',
        ]
    places = f'root = "{folder}/root"\nstate = "{folder}/state"'
    lines[1:1] = [places]
    lines += [
        f'[grpc]\naddress = "{folder}/s"',
        f'[plugins."{cri}".cni]\n{bins}\nconf_dir = "{folder}/net.d"',
        f'[plugins."{cri}".containerd]\ndefault_runtime_name = "{next(iter(commands))}"',
    ]
    for name, command in commands.items():
        handler = f'plugins."{cri}".containerd.runtimes.{name}'
        # The devices of this host are none of a guest's.
        devices = f"privileged_without_host_devices = {str(name == runtimes.OURS).lower()}"
        lines += [
            f'[{handler}]\nruntime_type = "io.containerd.runc.v2"\n{devices}',
            f'[{handler}.options]\nBinaryName = "{command}"',
        ]
    file = folder / "config.toml"
    # Tables come after the keys of no table.
    keys = [line for line in lines if not line.startswith("[")]
    file.write_text("\n".join([*keys, *(line for line in lines if line.startswith("["))]) + "\n")
    return file


def _network(addresses: Path) -> dict[str, object]:
    """Returns CNI's list of plugins for a bridge, whose addresses are stored in a folder."""
    bridge = {
        "type": "bridge",
        "bridge": "cni0",
        "isGateway": True,
        "ipMasq": True,
        "ipam": {
            "type": "host-local",
            "dataDir": str(addresses),
            "ranges": [[{"subnet": "10.88.77.0/24"}]],
            "routes": [{"dst": "0.0.0.0/0"}],
        },
    }
    ports = {"type": "portmap", "capabilities": {"portMappings": True}}
    return {"cniVersion": "0.4.0", "name": "conformance", "plugins": [bridge, ports]}


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(_LIMIT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _unmount_below(folder: Path) -> None:
    for line in reversed(Path("/proc/self/mountinfo").read_text().splitlines()):
        if (point := line.split()[4]).startswith(f"{folder}/"):
            subprocess.run(["umount", "--lazy", point], check=True)


def _remove_groups() -> None:
    """Removes control groups that containerd has made and left; those in use stay."""
    for group in Path("/sys/fs/cgroup").glob("*/k8s.io"):
        for one in (*group.glob("*/"), group):
            with contextlib.suppress(OSError):
                one.rmdir()
