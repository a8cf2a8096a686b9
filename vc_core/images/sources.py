"""Finds the source of an image by a path or a reference."""

from __future__ import annotations

import os
from pathlib import Path

from vc_core.images import layout
from vc_core.images.archive_source import STDIN, Archive
from vc_core.images.archives import ArchiveFormat
from vc_core.images.image import ImageConfig
from vc_core.images.oci_sources import Copied, OciLayout
from vc_core.images.platforms import Platform
from vc_core.images.rootfs_sources import Folder
from vc_core.images.source import Source
from vc_core.spec.errors import InvalidRequest

_IMAGE_FILES = ("oci-layout", "index.json", "manifest.json")


def of_path(
    path: Path,
    tag: str = "",
    config: ImageConfig | None = None,
    format: ArchiveFormat | None = None,  # noqa: A002 (the option's name)
    platform: Platform | None = None,
) -> Source:
    """Make a source from an OCI layout, an image archive, or the files of a root file system.

    Args:
        path: path on the host; "-" for an archive on standard input.
        tag: selects an image of a layout or archive with several.
        config: configuration of a root file system.
        format: format of an archive; None to detect it.
        platform: platform of the image; None for that of this machine.

    Raises:
        InvalidRequest: the path does not exist, or the options do not fit. Archives are checked
            when they are fetched.
    """
    if str(path) == "-":
        if os.isatty(STDIN):
            raise InvalidRequest(
                "'-' reads an archive from standard input, which is a terminal; pipe one into it"
            )
        return Archive(None, tag, config, format, platform)
    path = path.absolute()
    if not path.exists():
        raise InvalidRequest(
            f"{path} does not exist; to fetch from a registry, use 'vc image pull'"
        )
    if not path.is_dir():
        return Archive(path, tag, config, format, platform)
    if format is not None and format is not ArchiveFormat.ROOTFS:
        raise InvalidRequest(
            f"{path} is a directory, and {format} is a format of files; remove --format"
        )
    if layout.is_layout(path) and format is None:
        if config is not None and config != ImageConfig():
            raise InvalidRequest(
                f"{path} is an image with a configuration; "
                "remove the options that set one, such as --cmd"
            )
        return OciLayout(path, tag, platform)
    if format is None and (
        marker := next((name for name in _IMAGE_FILES if (path / name).is_file()), "")
    ):
        raise InvalidRequest(
            f"{path} has a file {marker} and seems to be an unpacked image archive; "
            "import the archive, or use '--format rootfs' if it is a root file system"
        )
    if tag:
        raise InvalidRequest(f"{path} is a root file system, which has no tags; remove --tag")
    return Folder(path, config or ImageConfig(), platform)


def of_reference(
    reference: str, insecure: bool = False, platform: Platform | None = None
) -> Source:
    """Make a source from a registry reference, or another reference of skopeo with a transport.

    Raises:
        InvalidRequest: the reference is invalid.
    """
    if not reference or reference != reference.strip() or reference.startswith("-"):
        raise InvalidRequest(
            f"{reference!r} is not an image reference; use e.g. debian:12 or registry.example/app"
        )
    return Copied(reference if "://" in reference else f"docker://{reference}", insecure, platform)
