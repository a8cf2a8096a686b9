"""Reads an OCI image layout: selects an image and verifies its digests.

See image-layout.md, image-index.md, manifest.md and descriptor.md of the OCI image-spec 1.1.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vc_core.images import archives
from vc_core.images.image import ImageError, Progress
from vc_core.images.platforms import Platform, of_machine

REF_NAME = "org.opencontainers.image.ref.name"
_INDEXES = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
_CHUNK = 1 << 20
_MAX_DOCUMENT = 4 << 20  # of an index or a manifest, as the distribution-spec has it for registries
# The media types of layers in the image-spec and in Docker.
_LAYER = re.compile(
    r"application/vnd\.(oci\.image\.layer\.(nondistributable\.)?v1\.tar(\+gzip|\+zstd)?"
    r"|docker\.image\.rootfs\.(foreign\.)?diff\.tar(\.gzip|\.zstd)?)"
)
_LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar"
_CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"
_MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"


@dataclass(frozen=True)
class Found:
    """One image of a layout.

    Attributes:
        layout: directory of the layout.
        descriptor: descriptor of the manifest.
        manifest: the manifest.
        config: configuration of the image.
        config_digest: digest of the configuration, in hex.
    """

    layout: Path
    descriptor: Mapping[str, Any]
    manifest: Mapping[str, Any]
    config: Mapping[str, Any]
    config_digest: str


@contextlib.contextmanager
def _as_specified(layout: Path) -> Iterator[None]:
    """Turn errors of unexpected types in the layout's documents into ImageError."""
    try:
        yield
    except (LookupError, TypeError, AttributeError, ValueError, RecursionError) as error:
        text = f"{type(error).__name__}: {error}"
        raise ImageError(
            f"{layout} is not a valid OCI image layout ({text}); fetch it again"
        ) from error


def is_layout(folder: Path) -> bool:
    """Whether a directory is an OCI layout."""
    return (folder / "oci-layout").is_file()


def find(layout: Path, tag: str = "", platform: Platform | None = None, name: str = "") -> Found:
    """Find an image by tag and platform.

    Args:
        layout: directory of the layout.
        tag: may be empty if the layout has only one image.
        platform: None for the platform of this machine.
        name: name of the layout for messages; empty for its path.

    Raises:
        ImageError: no image or several match, or a blob is missing or corrupt.
    """
    with _as_specified(layout):
        return _find(layout, tag, platform or of_machine(), name)


def _find(layout: Path, tag: str, wanted: Platform, name: str) -> Found:
    index = _json((layout / "index.json"), "index.json")
    entries = [entry for entry in index.get("manifests", ()) if not tag or _tag(entry) == tag]
    # Images of several platforms that are listed here, not in an index of their own.
    if len({_tag(entry) for entry in entries}) == 1 and len(entries) > 1:
        entries = [entry for entry in entries if wanted.fits(entry.get("platform") or {})]
    if len(entries) != 1:
        tags = ", ".join(sorted(filter(None, map(_tag, index.get("manifests", ()))))) or "none"
        raise ImageError(
            f"{name or layout} has {len(entries)} images {tag or 'to choose from'}; "
            f"its tags are: {tags}"
        )
    descriptor = _for_platform(layout, entries[0], wanted, name or str(layout))
    manifest = _document(layout, descriptor)
    config = _document(layout, manifest["config"])
    if not isinstance(config, dict):
        raise TypeError("its configuration is no object")
    return Found(
        layout, descriptor, manifest, config, str(manifest["config"]["digest"]).partition(":")[2]
    )


def check(found: Found, progress: Progress) -> None:
    """Verify the digest of every layer.

    Raises:
        ImageError: a blob is missing or corrupt.
    """
    with _as_specified(found.layout):
        layers = list(found.manifest["layers"])
        total, done = sum(int(layer["size"]) for layer in layers), 0
        for layer in layers:
            for count in _checked(found.layout, layer):
                done += count
                progress("verifying", done, total)


async def stage(found: Found, into: Path, progress: Progress) -> None:
    """Create a layout of one image with the tag `image` that every version of umoci can read.

    Layers compressed with zstd are decompressed, and Docker's media types replaced by those of the
    image-spec. Other blobs are linked.

    Args:
        found: the image, whose blobs were verified.
        into: the directory to create.
        progress: called for each step.

    Raises:
        ImageError: a layer is not a tar archive, or cannot be decompressed.
    """
    blobs = into / "blobs/sha256"
    blobs.mkdir(parents=True)
    with _as_specified(found.layout):
        layers = [
            await _staged(found.layout, layer, blobs, progress)
            for layer in found.manifest["layers"]
        ]
        config = {
            **_linked(found.layout, found.manifest["config"], blobs),
            "mediaType": _CONFIG_TYPE,
        }
    text = json.dumps(
        {"schemaVersion": 2, "mediaType": _MANIFEST_TYPE, "config": config, "layers": layers}
    ).encode()
    digest = hashlib.sha256(text).hexdigest()
    (blobs / digest).write_bytes(text)
    described = {"mediaType": _MANIFEST_TYPE, "digest": f"sha256:{digest}", "size": len(text)}
    descriptor = {**described, "annotations": {REF_NAME: "image"}}
    (into / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    (into / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [descriptor]}))


async def _staged(
    layout: Path, layer: Mapping[str, Any], blobs: Path, progress: Progress
) -> dict[str, Any]:
    """Stage a layer and return its new descriptor; compression is detected, not believed."""
    kind, file = str(layer.get("mediaType", "")), _blob(layout, layer)
    if not _LAYER.fullmatch(kind):
        raise ImageError(
            f"{layout} is not an image of files: the blob {layer['digest']} has the type {kind!r}"
        )
    program = await asyncio.to_thread(archives.compression, file)
    if program in ("", "gzip"):
        return {
            **_linked(layout, layer, blobs),
            "mediaType": _LAYER_TYPE + ("+gzip" if program else ""),
        }
    progress("decompressing")
    plain = await archives.decompress(file, blobs / f"{file.name}.tar")
    digest, size = await asyncio.to_thread(_measured, plain)
    plain.replace(blobs / digest)
    return {"mediaType": _LAYER_TYPE, "digest": f"sha256:{digest}", "size": size}


def _linked(layout: Path, descriptor: Mapping[str, Any], blobs: Path) -> dict[str, Any]:
    file = _blob(layout, descriptor)
    folder = blobs.parent / file.parent.name
    folder.mkdir(exist_ok=True)
    if not (folder / file.name).is_symlink():
        (folder / file.name).symlink_to(file.absolute())
    return {key: descriptor[key] for key in ("digest", "size")}


def _measured(file: Path) -> tuple[str, int]:
    """Digest and size of a file."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest(), file.stat().st_size


def _for_platform(
    layout: Path, descriptor: Mapping[str, Any], wanted: Platform, name: str
) -> Mapping[str, Any]:
    while descriptor.get("mediaType") in _INDEXES:
        entries = _document(layout, descriptor).get("manifests", ())
        fitting = [entry for entry in entries if wanted.fits(entry.get("platform") or {})]
        if not fitting:
            there = (
                ", ".join(sorted({_platform(entry) for entry in entries} - {"unknown/unknown"}))
                or "none"
            )
            raise ImageError(
                f"{name} has no image for {wanted}; select another with --platform: {there}"
            )
        descriptor = fitting[0]
    return descriptor


def _platform(descriptor: Mapping[str, Any]) -> str:
    platform = descriptor.get("platform") or {}
    return "/".join(
        str(platform[key]) for key in ("os", "architecture", "variant") if platform.get(key)
    )


def _tag(descriptor: Mapping[str, Any]) -> str:
    return str((descriptor.get("annotations") or {}).get(REF_NAME, ""))


def _document(layout: Path, descriptor: Mapping[str, Any]) -> Any:
    for _ in _checked(layout, descriptor):
        pass
    return _json(_blob(layout, descriptor), str(descriptor["digest"]))


def _json(file: Path, what: str) -> Any:
    try:
        if file.stat().st_size > _MAX_DOCUMENT:
            raise ValueError(f"larger than {_MAX_DOCUMENT >> 20} MiB")
        return json.loads(file.read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise ImageError(f"{what} of {file.parent} cannot be read: {error}") from error


def _blob(layout: Path, descriptor: Mapping[str, Any]) -> Path:
    algorithm, _, digest = str(descriptor["digest"]).partition(":")
    if algorithm not in ("sha256", "sha512") or not digest.isalnum():
        raise ImageError(f"the digest {descriptor['digest']!r} in {layout} is not sha256 or sha512")
    return layout / "blobs" / algorithm / digest


def _checked(layout: Path, descriptor: Mapping[str, Any]) -> Iterator[int]:
    """Read a blob, yield the sizes of its chunks, and raise ImageError if its digest differs."""
    name, file = descriptor["digest"], _blob(layout, descriptor)
    content = hashlib.new(str(name).partition(":")[0])
    try:
        with file.open("rb") as stream:
            while chunk := stream.read(_CHUNK):
                content.update(chunk)
                yield len(chunk)
    except OSError as error:
        raise ImageError(
            f"the blob {name} cannot be read: {error.strerror}; fetch the image again"
        ) from error
    if content.hexdigest() != file.name:
        raise ImageError(
            f"the blob {name} in {layout} is corrupt: its digest is {content.hexdigest()}; "
            "fetch the image again"
        )
