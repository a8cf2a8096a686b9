"""Reading an OCI image layout: which image of it is meant, and whether what it holds is what it says it is.

image-layout.md, image-index.md, manifest.md and descriptor.md of the OCI image-spec 1.1.
"""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vc_core.images.image import ImageError, Progress

REF_NAME = "org.opencontainers.image.ref.name"
_INDEXES = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
_CHUNK = 1 << 20
_GO_NAMES = {"x86_64": "amd64", "aarch64": "arm64"}


@dataclass(frozen=True)
class Found:
    """One image of a layout.

    Attributes:
        layout: the folder.
        descriptor: of its manifest.
        manifest: what that holds.
        config: the image's configuration.
        config_digest: in hex.
    """

    layout: Path
    descriptor: Mapping[str, Any]
    manifest: Mapping[str, Any]
    config: Mapping[str, Any]
    config_digest: str


def is_layout(folder: Path) -> bool:
    """Whether a folder says that it is one."""
    return (folder / "oci-layout").is_file()


def find(layout: Path, tag: str = "") -> Found:
    """The image of this machine's architecture under a tag.

    Args:
        layout: the folder.
        tag: may be empty when there is only one.

    Raises:
        ImageError: there is none, or several; or a blob that is missing or corrupt, which is named.
    """
    index = _json((layout / "index.json"), "index.json")
    entries = [one for one in index.get("manifests", ()) if not tag or _tag(one) == tag]
    if len(entries) != 1:
        tags = ", ".join(sorted(filter(None, map(_tag, index.get("manifests", ()))))) or "none"
        raise ImageError(f"{layout} has {len(entries)} images {tag or 'to choose from'}; its tags are: {tags}")
    descriptor = _of_this_machine(layout, entries[0])
    manifest = _document(layout, descriptor)
    config = _document(layout, manifest["config"])
    return Found(layout, descriptor, manifest, config, str(manifest["config"]["digest"]).partition(":")[2])


def check(found: Found, progress: Progress) -> None:
    """Reads every layer and compares it with its digest.

    Raises:
        ImageError: naming the blob that is missing or corrupt.
    """
    layers = list(found.manifest["layers"])
    total, done = sum(int(layer["size"]) for layer in layers), 0
    for layer in layers:
        for count in _checked(found.layout, layer):
            done += count
            progress("verifying", done, total)


def stage(found: Found, into: Path) -> None:
    """A layout with this one image in it, under the tag `image`, which shares the blobs."""
    into.mkdir()
    descriptor = {**found.descriptor, "annotations": {REF_NAME: "image"}}
    (into / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    (into / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [descriptor]}))
    (into / "blobs").symlink_to((found.layout / "blobs").absolute())


def architecture() -> str:
    """This machine's, as Go and so all image-specs name it."""
    return _GO_NAMES.get(platform.machine(), platform.machine())


def _of_this_machine(layout: Path, descriptor: Mapping[str, Any]) -> Mapping[str, Any]:
    while descriptor.get("mediaType") in _INDEXES:
        entries = _document(layout, descriptor).get("manifests", ())
        fitting = [one for one in entries if _platform(one) == ("linux", architecture())]
        if not fitting:
            there = ", ".join(sorted({"/".join(_platform(one)) for one in entries})) or "none"
            raise ImageError(f"{layout} has no image for linux/{architecture()}; it has: {there}")
        descriptor = fitting[0]
    return descriptor


def _platform(descriptor: Mapping[str, Any]) -> tuple[str, str]:
    found = descriptor.get("platform") or {}
    return str(found.get("os", "")), str(found.get("architecture", ""))


def _tag(descriptor: Mapping[str, Any]) -> str:
    return str((descriptor.get("annotations") or {}).get(REF_NAME, ""))


def _document(layout: Path, descriptor: Mapping[str, Any]) -> Any:
    for _ in _checked(layout, descriptor):
        pass
    return _json(_blob(layout, descriptor), str(descriptor["digest"]))


def _json(file: Path, what: str) -> Any:
    try:
        return json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise ImageError(f"{what} of {file.parent} cannot be read: {error}") from error


def _blob(layout: Path, descriptor: Mapping[str, Any]) -> Path:
    algorithm, _, digest = str(descriptor["digest"]).partition(":")
    if algorithm not in ("sha256", "sha512") or not digest.isalnum():
        raise ImageError(f"the digest {descriptor['digest']!r} in {layout} is of no kind that we can verify")
    return layout / "blobs" / algorithm / digest


def _checked(layout: Path, descriptor: Mapping[str, Any]) -> Iterator[int]:
    """The sizes of the pieces that were read; raises at the end when they are not what was promised."""
    name, file = descriptor["digest"], _blob(layout, descriptor)
    found = hashlib.new(str(name).partition(":")[0])
    try:
        with file.open("rb") as stream:
            while chunk := stream.read(_CHUNK):
                found.update(chunk)
                yield len(chunk)
    except OSError as error:
        raise ImageError(f"the blob {name} cannot be read: {error.strerror}; fetch the image again") from error
    if found.hexdigest() != file.name:
        raise ImageError(f"the blob {name} in {layout} is corrupt: its content has the digest {found.hexdigest()}")
