"""The images that critest asks for, of busybox and a program of ours, in a registry on loopback."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from conformance.building import go

_E2E = "e2e-test-images"
_STAGING = "k8s-staging-cri-tools"
_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_FROM_HOST = ("/usr/bin/ipcs", "/usr/bin/pgrep")  # busybox lacks them
_USERS = (
    "root:x:0:0:root:/root:/bin/sh\nwww-data:x:33:33::/var/www:/bin/false\n"
    "default-user:x:1000:1000::/home:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n"
)
_GROUPS = (
    "root:x:0:\nwww-data:x:33:\ndefault-user:x:1000:\n"
    "group-defined-in-image:x:50000:default-user\nnogroup:x:65534:\n"
)
PAUSE = "pause:3.9"


@dataclass(frozen=True)
class _Image:
    """An image.

    Attributes:
        names: with tags, without the registry.
        config: the `config` of an OCI image.
        program: where the program of ours is in it; empty for an image without it.
    """

    names: Sequence[str]
    config: dict[str, object]
    program: str = ""


def _with_user(user: str, name: str) -> _Image:
    return _Image([f"{_STAGING}/test-image-{name}:latest"], {"User": user, "Cmd": ["sh"]})


def _plain(*names: str) -> _Image:
    return _Image([f"{_STAGING}/test-image-{one}" for one in names], {"Cmd": ["sh"]})


def _server(name: str, program: str, port: str) -> _Image:
    path = f"/usr/sbin/{program}"
    return _Image([name], {"Cmd": [path, port]}, program=path)


_IMAGES = (
    _Image([f"{_E2E}/busybox:1.29-2"], {"Cmd": ["sh"]}),
    _server(f"{_E2E}/nginx:1.14-2", "nginx", "80"),
    _server(f"{_STAGING}/hostnet-nginx-amd64:latest", "nginx", "12003"),
    _server(f"{_E2E}/httpd:2.4.39-4", "httpd", "80"),
    _Image([f"{_E2E}/nonewprivs:1.3"], {"Entrypoint": ["/nonewprivs"]}, program="/nonewprivs"),
    _Image([PAUSE, "pause:3.10.2"], {"Entrypoint": ["/pause"]}, program="/pause"),
    _with_user("1002", "user-uid"),
    _with_user("www-data", "user-username"),
    _with_user("1003:1004", "user-uid-group"),
    _with_user("www-data:1004", "user-username-group"),
    _with_user("1000", "predefined-group"),
    *(_plain(one) for one in ("latest:latest", "tag:test", "tag:all", "digest:latest")),
    *(_plain(f"{number}:latest") for number in (1, 2, 3)),
    _plain("tags:1", "tags:2", "tags:3"),
)


def push(registry: str, enter: Sequence[str]) -> None:
    """Makes the images, and pushes them.

    Args:
        registry: its host and port.
        enter: words before a command that has to reach the registry.

    Raises:
        Unusable: the program cannot be built.
    """
    with tempfile.TemporaryDirectory(prefix="vc.") as made:
        folder = Path(made)
        go("build", "-o", str(folder / "program"), "./program", module="cri")
        root = folder / "root"
        _make_root(root)
        for number, image in enumerate(_IMAGES):
            (root / "number").write_text(str(number))  # no two are the same
            program = root / image.program.lstrip("/")
            if image.program:
                shutil.copy(folder / "program", program)
                program.chmod(0o4755)  # of nonewprivs: it becomes root
            archive = _archive(root, folder, image)
            if image.program:
                program.unlink()
            for name in image.names:
                words = ("skopeo", "copy", "--quiet", "--dest-tls-verify=false")
                target = f"docker://{registry}/{name}"
                subprocess.run([*enter, *words, f"docker-archive:{archive}", target], check=True)
            archive.unlink()


def _make_root(root: Path) -> None:
    names = ("bin", "etc", "tmp", "proc", "sys", "dev", "root", "var/run", "usr/sbin", "usr/bin")
    for name in (*names, "home", "var/www"):
        (root / name).mkdir(parents=True)
    (root / "tmp").chmod(0o1777)
    (root / "etc/passwd").write_text(_USERS)
    (root / "etc/group").write_text(_GROUPS)
    shutil.copy("/bin/busybox", root / "bin/busybox")
    listed = subprocess.run(["/bin/busybox", "--list"], stdout=subprocess.PIPE, check=True)
    own = {"busybox", "sh", *(Path(one).name for one in _FROM_HOST)}
    for name in set(listed.stdout.decode().split()) - own:
        (root / "bin" / name).hardlink_to(root / "bin/busybox")  # one is masked in a test
    with tempfile.TemporaryDirectory(prefix="vc.") as made:
        _copy(_shell(Path(made)), root, "bin/sh")
    for file in _FROM_HOST:
        _copy(Path(file), root, file.lstrip("/"))


def _shell(folder: Path) -> Path:
    """Returns a shell of busybox that runs programs by their path.

    That of the package busybox-static runs its own ones, masked or not. The two packages exclude
    each other, so this one is only unpacked.
    """
    download = ("apt-get", "-qq", "-o", "APT::Sandbox::User=root", "download", "busybox")
    subprocess.run(download, cwd=folder, check=True)
    (package,) = folder.glob("busybox_*.deb")
    subprocess.run(["dpkg-deb", "--extract", package, folder / "unpacked"], check=True)
    return folder / "unpacked/bin/busybox"


def _copy(file: Path, root: Path, target: str) -> None:
    """Copies a program, and the libraries that it needs."""
    shutil.copy(file, root / target)
    linked = subprocess.run(["ldd", file], stdout=subprocess.PIPE, check=True).stdout.decode()
    for library in (word for word in linked.split() if word.startswith("/")):
        copied = root / library.lstrip("/")
        copied.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(library, copied)


def _archive(root: Path, folder: Path, image: _Image) -> Path:
    """Writes an archive as `docker save` does, and returns its path."""
    archive = folder / "archive.tar"
    with tempfile.TemporaryDirectory(dir=folder) as made:
        parts = Path(made)
        pack = ("tar", "--sort=name", "--mtime=@0", "--owner=0", "--group=0", "-C")
        subprocess.run([*pack, root, "-cf", parts / "layer.tar", "."], check=True)
        with (parts / "layer.tar").open("rb") as layer:
            digest = hashlib.file_digest(layer, "sha256").hexdigest()
        config = {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Env": [_PATH], **image.config},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
        }
        (parts / "config.json").write_text(json.dumps(config))
        manifest = [{"Config": "config.json", "RepoTags": None, "Layers": ["layer.tar"]}]
        (parts / "manifest.json").write_text(json.dumps(manifest))
        names = sorted(one.name for one in parts.iterdir())
        subprocess.run(["tar", "-C", parts, "-cf", archive, *names], check=True)
    return archive
