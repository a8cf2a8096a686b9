"""A tree of files into one read-only file that a guest's kernel mounts by itself."""

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
    """Packs a tree, in which it makes the folders that every container mounts something on, and the image's volumes.

    Not compressed: what all pods of a host share is read from one page cache, and a guest has better to do.

    Args:
        tree: the files; loses nothing.
        into: the file to make.
        config: of the image.
        image_id: becomes the file system's UUID.
        progress: is told.

    Raises:
        ImageError: mkfs.erofs is missing or has failed.
    """
    progress("packing")
    for point in (*_POINTS, *(volume.strip("/") for volume in config.volumes)):
        _make_folder(tree, PurePosixPath(point))
    name = str(uuid.UUID(bytes=bytes.fromhex(image_id)[:16]))
    owners = (
        () if os.geteuid() == 0 else ("--all-root",)
    )  # a user who is not root cannot unpack other owners
    await programs.run("mkfs.erofs", "--quiet", "-U", name, *owners, into, tree)
    with into.open("rb") as stream:
        os.fsync(stream.fileno())


def _make_folder(tree: Path, point: PurePosixPath) -> None:
    """Below the tree and nowhere else: an image may have a link there that leads out of it."""
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
