"""Packs a directory tree into an erofs file, which the guest's kernel mounts."""

from __future__ import annotations

import os
import uuid
from pathlib import Path, PurePosixPath

from vc_core.images import programs
from vc_core.images.image import ImageConfig, Progress

_POINTS = ("proc", "sys", "dev", "tmp", "run", "etc")


async def make(
    tree: Path, into: Path, config: ImageConfig, image_id: str, progress: Progress
) -> None:
    """Pack a tree, after creating the mount points of containers and of the image's volumes in it.

    The file is not compressed: all pods of a host read it from one page cache, and decompression
    would cost CPU time in each guest.

    Args:
        tree: the files; mount points are added.
        into: the file to create.
        config: configuration of the image.
        image_id: becomes the UUID of the file system.
        progress: called for each step.

    Raises:
        ImageError: mkfs.erofs is missing or failed.
    """
    progress("packing")
    for point in (*_POINTS, *(volume.strip("/") for volume in config.volumes)):
        _make_folder(tree, PurePosixPath(point))
    name = str(uuid.UUID(bytes=bytes.fromhex(image_id)[:16]))
    # Other users cannot unpack files of other owners.
    owners = () if os.geteuid() == 0 else ("--all-root",)
    await programs.run("mkfs.erofs", "--quiet", "-U", name, *owners, into, tree)
    with into.open("rb") as stream:
        os.fsync(stream.fileno())


def _make_folder(tree: Path, point: PurePosixPath) -> None:
    """Create a directory in the tree; nothing is created below a link, which may lead out of it."""
    at = tree
    for part in point.parts:
        at /= part
        if part == ".." or at.is_symlink():
            return
        if not at.exists():
            at.mkdir(mode=0o1777 if point == PurePosixPath("tmp") else 0o755)
            if point == PurePosixPath("tmp"):
                at.chmod(0o1777)
        elif not at.is_dir():
            return
