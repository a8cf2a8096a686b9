"""A Kubernetes of one node: etcd, API server, containerd and kubelet, in namespaces of its own.

The options are what they need on a host without systemd and with control groups of version 1.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from string import Template

from conformance import runtimes
from conformance.building import Unusable, go

_HERE = Path(__file__).parent
_ADDRESS = "192.0.2.1"  # of the node
_API = "https://127.0.0.1:6443"
_DEADLINE_S = 180.0
_ASK_S = 0.2
_ETCD = "http://127.0.0.1:2379"
_PEERS = "http://127.0.0.1:2380"
_SPACE = "k8s.io"  # of containerd
IMAGE = "localhost/busybox:1"
_MOUNTS = (
    "mount --make-rshared / && ip link set lo up && ip link add node type bridge"
    f" && ip address add {_ADDRESS}/24 dev node && ip link set node up"
    # kubelet, CNI and containerd write there, wherever their own files are
    " && mkdir -p /run/netns /var/lib/cni"
    " && for d in /run/netns /var/lib/cni /var/log; do mount -t tmpfs tmpfs $d; done"
    # crun refuses hosts that have controllers of both versions
    " && { [ ! -e $1 ] || mount --bind /dev/null $1; }"
    " && echo ready && exec sleep 100000"
)
_HYBRID = "/sys/fs/cgroup/unified/cgroup.controllers"


@dataclass(frozen=True)
class Cluster:
    """A cluster that runs.

    Attributes:
        folder: its files.
        entering: words in front of a command that enter its namespaces.
        programs: the folder with kubectl.
        commands: those of the runtimes, by the names of their handlers.
    """

    folder: Path
    entering: tuple[str, ...]
    programs: Path
    commands: Mapping[str, Path]

    def command(self, *words: str) -> list[str]:
        """Returns the words of a command of kubectl."""
        program = str(self.programs / "kubectl")
        return [*self.entering, program, "--kubeconfig", f"{self.folder}/kubeconfig", *words]

    def containers(self, runtime: str) -> list[str]:
        """Returns the ids of the containers that a runtime has."""
        root = self.folder / "roots" / runtime / _SPACE
        words = (self.commands[runtime], "--root", root, "list", "--quiet")
        done = subprocess.run([*self.entering, *words], stdout=subprocess.PIPE, check=True)
        return done.stdout.decode().split()

    def kubectl(
        self, *words: str, stdin: str = "", check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Types a command of kubectl.

        Raises:
            CalledProcessError: it ended with another code than 0, and `check` is set.
        """
        return subprocess.run(
            self.command(*words),
            input=stdin,
            capture_output=True,
            text=True,
            timeout=_DEADLINE_S,
            check=check,
        )


def build(folder: Path) -> None:
    """Builds Kubernetes' programs into a folder.

    Raises:
        Unusable: there is no Go, or it fails.
    """
    folder.mkdir(parents=True, exist_ok=True)
    version = go("list", "-m", "-f", "{{.Version}}", "k8s.io/kubernetes", module="kubernetes")
    named = f"-X k8s.io/component-base/version.gitVersion={version}"
    go("build", "-o", f"{folder}/", "-ldflags", named, "tool", module="kubernetes")


@contextmanager
def cluster(programs: Path, handlers: Sequence[str]) -> Iterator[Cluster]:
    """Provides a cluster on whose node runtimes are handlers, and ends it.

    Args:
        programs: the folder of `build`.
        handlers: names of runtimes.

    Raises:
        Unusable: a program is missing, or does not become ready.
    """
    for one in ("etcd", "containerd", "ip", "umoci", "skopeo"):
        if shutil.which(one) is None:
            raise Unusable(f"{one} is not on the PATH; run tools/prepare conformance")
    with contextlib.ExitStack() as stack:
        # A short path: those of sockets are limited.
        folder = Path(tempfile.mkdtemp(prefix="vc.", dir="/tmp"))
        stack.callback(shutil.rmtree, folder)
        stack.callback(_leave_groups)
        entering = stack.enter_context(_namespaces(folder))
        commands = {}
        for name in handlers:
            (folder / name).mkdir()
            commands[name] = runtimes.command(name, folder / name)
        found = Cluster(folder, entering, programs, commands)
        _write(folder, commands)

        def start(name: str, *words: str) -> subprocess.Popen[bytes]:
            return stack.enter_context(_process(folder / f"{name}.log", *entering, *words))

        def ready(name: str, process: subprocess.Popen[bytes], *words: str) -> None:
            _wait(name, process, folder / f"{name}.log", words)

        urls = ("--listen-client-urls", _ETCD, "--advertise-client-urls", _ETCD)
        peers = ("--listen-peer-urls", _PEERS, "--initial-advertise-peer-urls", _PEERS)
        members = ("--initial-cluster", f"default={_PEERS}")
        start("etcd", "etcd", "--data-dir", f"{folder}/etcd", *urls, *peers, *members)
        api = start("kube-apiserver", str(programs / "kube-apiserver"), *_api_options(folder))
        ready("kube-apiserver", api, *found.command("get", "--raw", "/readyz"))
        engine = start("containerd", "containerd", "--config", f"{folder}/containerd.toml")
        ctr = (*entering, "ctr", "--address", f"{folder}/c.sock")
        ready("containerd", engine, *ctr, "version")
        archive = _image(folder)
        subprocess.run(
            [*ctr, "--namespace", _SPACE, "images", "import", str(archive)],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        options = (f"--config={folder}/kubelet.yaml", f"--kubeconfig={folder}/kubeconfig")
        own = (f"--root-dir={folder}/k", f"--cert-dir={folder}/pki", f"--node-ip={_ADDRESS}")
        kubelet = start(
            "kubelet", str(programs / "kubelet"), "--hostname-override=node", *options, *own
        )
        ready("kubelet", kubelet, *found.command("get", "node", "node"))
        found.kubectl("wait", "--for=condition=Ready", "node/node", "--timeout=120s")
        yield found


@contextmanager
def _namespaces(folder: Path) -> Iterator[tuple[str, ...]]:
    """Provides the words that enter a network and a mount namespace, whose root is shared."""
    words = ("unshare", "--net", "--mount", "--propagation", "private", "sh", "-ec", _MOUNTS)
    keeper = subprocess.Popen([*words, "sh", _HYBRID], stdout=subprocess.PIPE)
    try:
        assert keeper.stdout is not None
        if keeper.stdout.readline() != b"ready\n":
            raise Unusable("no namespaces can be made; run as root")
        spaces = f"/proc/{keeper.pid}/ns"
        yield ("nsenter", f"--net={spaces}/net", f"--mount={spaces}/mnt", f"--wd={folder}")
    finally:
        keeper.kill()
        keeper.wait()


@contextmanager
def _process(log: Path, *words: str) -> Iterator[subprocess.Popen[bytes]]:
    environment = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    with log.open("wb") as file:
        process = subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=file, stderr=file, env=environment
        )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait(name: str, process: subprocess.Popen[bytes], log: Path, words: tuple[str, ...]) -> None:
    """Types a command until it succeeds: these programs tell nobody when they are ready."""
    until = time.monotonic() + _DEADLINE_S
    while subprocess.run(words, capture_output=True, check=False).returncode != 0:
        if process.poll() is not None or time.monotonic() > until:
            end = "\n".join(log.read_text(errors="replace").splitlines()[-8:])
            raise Unusable(f"{name} does not become ready:\n{end}")
        time.sleep(_ASK_S)


def _api_options(folder: Path) -> tuple[str, ...]:
    return (
        f"--etcd-servers={_ETCD}",
        "--bind-address=127.0.0.1",
        "--advertise-address=127.0.0.1",
        f"--cert-dir={folder}/pki",
        "--endpoint-reconciler-type=none",
        "--service-cluster-ip-range=203.0.113.0/24",
        f"--service-account-issuer={_API}",
        f"--service-account-key-file={folder}/sa.key",
        f"--service-account-signing-key-file={folder}/sa.key",
        f"--token-auth-file={folder}/tokens.csv",
        "--authorization-mode=AlwaysAllow",
        "--disable-admission-plugins=ServiceAccount",
        "--kubelet-preferred-address-types=InternalIP",
    )


def _leave_groups() -> None:
    """Removes the empty control groups that containerd leaves."""
    for group in Path("/sys/fs/cgroup").glob(f"*/{_SPACE}"):
        with contextlib.suppress(OSError):  # another containerd uses it
            group.rmdir()


def _write(folder: Path, commands: Mapping[str, Path]) -> None:
    """Writes the files of all programs."""
    token = secrets.token_hex(16)
    values = {"folder": str(folder), "address": _ADDRESS, "image": IMAGE}
    (folder / "net.d").mkdir()
    for name, target in (
        ("kubelet.yaml", "kubelet.yaml"),
        ("network.conflist", "net.d/pods.conflist"),
        ("containerd.toml", "containerd.toml"),
    ):
        (folder / target).write_text(Template((_HERE / name).read_text()).substitute(values))
    table = 'plugins."io.containerd.grpc.v1.cri".containerd.runtimes'
    with (folder / "containerd.toml").open("a") as file:
        for name, command in commands.items():
            file.write(
                f'[{table}.{name}]\nruntime_type = "io.containerd.runc.v2"\n'
                f'[{table}.{name}.options]\nBinaryName = "{command}"\n'
                f'Root = "{folder}/roots/{name}"\n'
            )
    key = ("openssl", "genrsa", "-out", f"{folder}/sa.key", "2048")
    subprocess.run(key, check=True, capture_output=True)
    (folder / "tokens.csv").write_text(f"{token},admin,admin,system:masters\n")
    (folder / "kubeconfig").write_text(
        "apiVersion: v1\nkind: Config\ncurrent-context: all\n"
        "clusters: [{name: all, cluster: "
        f"{{server: '{_API}', insecure-skip-tls-verify: true}}}}]\n"
        f"users: [{{name: all, user: {{token: {token}}}}}]\n"
        "contexts: [{name: all, context: {cluster: all, user: all}}]\n"
    )


def _image(folder: Path) -> Path:
    """Makes an archive of an image with busybox alone, whose default command waits."""
    busybox = shutil.which("busybox")
    if busybox is None:
        raise Unusable("busybox is not on the PATH; run tools/prepare conformance")
    root, layout, archive = folder / "image", f"{folder}/layout:1", folder / "image.tar"
    for name in ("bin", "tmp", "etc"):
        (root / name).mkdir(parents=True)
    shutil.copy(busybox, root / "bin/busybox")
    names = subprocess.run([busybox, "--list"], stdout=subprocess.PIPE, text=True, check=True)
    for name in names.stdout.split():
        if name != "busybox":
            (root / "bin" / name).symlink_to("busybox")
    configured = ("--config.cmd", "sleep", "--config.cmd", "100000", "--config.env", "PATH=/bin")
    for words in (
        ("umoci", "init", "--layout", f"{folder}/layout"),
        ("umoci", "new", "--image", layout),
        ("umoci", "insert", "--image", layout, str(root), "/"),
        ("umoci", "config", "--image", layout, *configured),
        ("skopeo", "copy", f"oci:{layout}", f"docker-archive:{archive}:{IMAGE}"),
    ):
        subprocess.run(words, check=True, capture_output=True)
    return archive
