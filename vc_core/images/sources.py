"""The source of an image that a path or a reference means."""

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

_OF_IMAGES = ("oci-layout", "index.json", "manifest.json")


def of_path(
    path: Path,
    tag: str = "",
    config: ImageConfig | None = None,
    format: ArchiveFormat | None = None,  # noqa: A002 (the option's name)
    platform: Platform | None = None,
) -> Source:
    """What lies at a path: an OCI layout, an archive of images, a tarball of files or a folder of files.

    Args:
        path: of the host; "-" for an archive on standard input.
        tag: which image of a layout or archive.
        config: for a tarball or folder, which have none of their own.
        format: what an archive holds, where that is not to be found out.
        platform: the kind of machine it must be for; None for this machine's.

    Raises:
        InvalidRequest: there is nothing, or nothing of this kind; or a configuration was given for what has one. What
            an archive holds is found when it is fetched.
    """
    if str(path) == "-":
        if os.isatty(STDIN):
            raise InvalidRequest(
                "'-' reads an archive from standard input, which is a terminal; pipe one into it"
            )
        return Archive(None, tag, config, format, platform)
    path = path.absolute()
    if not path.exists():
        raise InvalidRequest(f"there is no {path}; 'vc image pull' fetches from a registry")
    if not path.is_dir():
        return Archive(path, tag, config, format, platform)
    if format is not None and format is not ArchiveFormat.ROOTFS:
        raise InvalidRequest(
            f"{path} is a folder, and {format} is a format of files; leave --format away"
        )
    if layout.is_layout(path) and format is None:
        if config is not None and config != ImageConfig():
            raise InvalidRequest(
                f"{path} is an image with a configuration of its own; leave --cmd and the like away"
            )
        return OciLayout(path, tag, platform)
    if format is None and (
        found := next((one for one in _OF_IMAGES if (path / one).is_file()), "")
    ):
        raise InvalidRequest(
            f"{path} has a file {found}, as unpacked archives of images have; import the archive, "
            "or '--format rootfs' if these are the files of a root file system"
        )
    if tag:
        raise InvalidRequest(f"{path} is a folder of files, which has no tag {tag!r}")
    return Folder(path, config or ImageConfig(), platform)


def of_reference(
    reference: str, insecure: bool = False, platform: Platform | None = None
) -> Source:
    """An image of a registry, or what another word before the first colon says as skopeo has it.

    Raises:
        InvalidRequest: it cannot be a reference.
    """
    if not reference or reference != reference.strip() or reference.startswith("-"):
        raise InvalidRequest(
            f"{reference!r} is no image; write it as in debian:12 or registry.example/team/app:1.0"
        )
    return Copied(reference if "://" in reference else f"docker://{reference}", insecure, platform)
