"""OCI layouts, made by hand with all that layers can hold."""

from __future__ import annotations

import hashlib
import io
import json
import platform
import subprocess
import tarfile
from pathlib import Path
from typing import Any

ARCHITECTURE = {"x86_64": "amd64", "aarch64": "arm64"}[platform.machine()]
_TYPES = {
    "f": tarfile.REGTYPE,
    "d": tarfile.DIRTYPE,
    "l": tarfile.SYMTYPE,
    "h": tarfile.LNKTYPE,
    "c": tarfile.CHRTYPE,
}


def entry(
    name: str, kind: str = "f", data: bytes = b"", link: str = "", **fields: Any
) -> tuple[tarfile.TarInfo, bytes]:
    """One member of a layer."""
    info = tarfile.TarInfo(name)
    info.type, info.size, info.linkname, info.mtime = _TYPES[kind], len(data), link, 1_000_000_000
    info.mode = 0o755 if kind == "d" else 0o644
    for key, value in fields.items():
        setattr(info, key, value)
    return info, data


def layer(*entries: tuple[tarfile.TarInfo, bytes]) -> bytes:
    """A tar archive of them."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for info, data in entries:
            archive.addfile(info, io.BytesIO(data))
    return stream.getvalue()


def compressed(data: bytes, program: str) -> bytes:
    """The data as a program compresses it."""
    return subprocess.run([program, "-c"], input=data, stdout=subprocess.PIPE, check=True).stdout


def docker_archive(
    file: Path,
    writer: str,
    layers: list[bytes],
    names: tuple[str, ...] = ("team/app:1",),
    compression: str = "gzip",
) -> None:
    """A docker archive with the members that a program writes, in its order.

    Args:
        file: to make.
        writer: "ggcr" (crane, ko, kaniko), "jib" or "nix".
        layers: tar archives.
        names: one image for each.
        compression: of the layers.
    """
    manifests = []
    with tarfile.open(file, "w") as archive:

        def add(name: str, data: bytes) -> str:
            archive.addfile(*_streamed(entry(name, data=data)))
            return name

        for number, name in enumerate(names):
            config = _config(
                layers, {"Cmd": ["cat", "/file"], "Labels": {"number": str(number)}}, ARCHITECTURE
            )
            digest = hashlib.sha256(config).hexdigest()
            if writer != "nix":
                add("config.json" if writer == "jib" else f"sha256:{digest}", config)
            paths = []
            for one in layers:
                packed = one if writer == "nix" else compressed(one, compression)
                of_layer = hashlib.sha256(packed).hexdigest()
                paths.append(
                    add(
                        f"{of_layer}/layer.tar" if writer == "nix" else f"{of_layer}.tar.gz", packed
                    )
                )
            if writer == "nix":
                add(f"{digest}.json", config)
            own = {"ggcr": f"sha256:{digest}", "jib": "config.json", "nix": f"{digest}.json"}[
                writer
            ]
            manifests.append({"Config": own, "RepoTags": [name], "Layers": paths})
        add("manifest.json", json.dumps(manifests).encode())


def _streamed(member: tuple[tarfile.TarInfo, bytes]) -> tuple[tarfile.TarInfo, io.BytesIO]:
    return member[0], io.BytesIO(member[1])


def _config(layers: list[bytes], config: dict[str, Any], architecture: str) -> bytes:
    document = {
        "architecture": architecture,
        "os": "linux",
        "config": config,
        "rootfs": {
            "type": "layers",
            "diff_ids": [f"sha256:{hashlib.sha256(one).hexdigest()}" for one in layers],
        },
    }
    return json.dumps(document).encode()


class Layout:
    """A layout that is being written."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "blobs/sha256").mkdir(parents=True)
        (folder / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
        self._manifests: list[dict[str, Any]] = []

    def blob(self, data: bytes, kind: str) -> dict[str, Any]:
        """Writes one; gives its descriptor."""
        digest = hashlib.sha256(data).hexdigest()
        (self.folder / "blobs/sha256" / digest).write_bytes(data)
        return {
            "mediaType": f"application/vnd.oci.image.{kind}",
            "digest": f"sha256:{digest}",
            "size": len(data),
        }

    def image(
        self,
        tag: str,
        layers: list[bytes],
        config: dict[str, Any],
        architecture: str = ARCHITECTURE,
        compression: str = "gzip",
    ) -> str:
        """Adds an image, whose layers gzip or zstd compresses; gives its id."""
        described = self.blob(_config(layers, config, architecture), "config.v1+json")
        manifest = {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": described,
            "layers": [
                self.blob(compressed(one, compression), f"layer.v1.tar+{compression}")
                for one in layers
            ],
        }
        found = self.blob(json.dumps(manifest).encode(), "manifest.v1+json")
        platform = {"architecture": architecture, "os": "linux"}
        self._manifests.append(
            {
                **found,
                "platform": platform,
                "annotations": {"org.opencontainers.image.ref.name": tag},
            }
        )
        self._write(self._manifests)
        return str(described["digest"]).partition(":")[2]

    def join(self, tag: str) -> None:
        """Puts all images so far into one index, as one image for several architectures."""
        bare = [
            {key: value for key, value in one.items() if key != "annotations"}
            for one in self._manifests
        ]
        index = {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": bare,
        }
        found = self.blob(json.dumps(index).encode(), "index.v1+json")
        self._write([{**found, "annotations": {"org.opencontainers.image.ref.name": tag}}])

    def layers(self) -> list[Path]:
        """Those of the first image."""
        manifest = self._read(self._manifests[0])
        return [
            self.folder / "blobs/sha256" / one["digest"].partition(":")[2]
            for one in manifest["layers"]
        ]

    def _read(self, descriptor: dict[str, Any]) -> Any:
        return json.loads(
            (self.folder / "blobs/sha256" / descriptor["digest"].partition(":")[2]).read_text()
        )

    def _write(self, manifests: list[dict[str, Any]]) -> None:
        (self.folder / "index.json").write_text(
            json.dumps({"schemaVersion": 2, "manifests": manifests})
        )


def busybox_layers(program: bytes) -> list[bytes]:
    """Two layers: the second takes away, replaces and hides what the first has."""
    applets = (
        "sh",
        "cat",
        "echo",
        "id",
        "ls",
        "stat",
        "env",
        "pwd",
        "sleep",
        "true",
        "test",
        "trap",
        "readlink",
    )
    first = layer(
        entry("bin", "d"),
        entry("bin/busybox", data=program, mode=0o755),
        *(entry(f"bin/{name}", "l", link="busybox") for name in applets),
        entry("etc", "d"),
        entry(
            "etc/passwd",
            data=b"root:x:0:0:root:/root:/bin/sh\nnina:x:1234:5678:Nina:/home/nina:/bin/sh\n",
        ),
        entry("etc/group", data=b"root:x:0:\nstaff:x:5678:\n"),
        entry("data", "d"),
        entry("data/gone", data=b"gone"),
        entry("data/kept", data=b"kept", uid=70_000, gid=80_000, mode=0o640),
        entry("data/twin", "h", link="data/kept"),
        entry("data/marked", data=b"marked", pax_headers={"SCHILY.xattr.user.mark": "yes"}),
        entry("data/strong", data=b"strong", mode=0o4755),
        entry("data/null", "c", devmajor=1, devminor=3, mode=0o666),
        entry("hidden", "d"),
        entry("hidden/old", data=b"old"),
        entry("turned", data=b"a file"),
        entry("home/nina", "d", uid=1234, gid=5678),
    )
    second = layer(
        entry("data", "d"),
        entry("data/.wh.gone"),
        entry("hidden", "d"),
        entry("hidden/.wh..wh..opq"),
        entry("hidden/new", data=b"new"),
        entry("turned", "d"),
        entry("turned/inside", data=b"inside"),
    )
    return [first, second]
