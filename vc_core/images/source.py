"""The interface of image sources."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path

from msgspec import Struct

from vc_core.images.image import Progress
from vc_core.images.platforms import Platform

TREE = "tree"
"""Name of the directory with the files of an image, in the directory passed to `fetch`."""


class Material(Struct, frozen=True):
    """A fetched image.

    Attributes:
        config: its configuration, unchanged; the digest is the image's id.
        tree: directory with its files.
    """

    config: bytes
    tree: Path


class Source(ABC):
    """A source of one image.

    Attributes:
        key: identifies the source; sources with the same key give the same image.
        platform: platform of the image; None for that of this machine.
    """

    key: str
    platform: Platform | None = None

    async def config_digest(self) -> str:
        """The image's id if it is known without fetching the image; else empty."""
        return ""

    @abstractmethod
    async def fetch(self, into: Path, progress: Progress) -> Material:
        """Fetch the image.

        Args:
            into: an empty directory for all files; removed by the caller.
            progress: called for each step.

        Raises:
            ImageError: it cannot be fetched.
            InvalidRequest: the source is not an image.
        """


def place_key(place: str, platform: Platform | None) -> str:
    """Make a `Source.key` from a place and a platform."""
    return place if platform is None else f"{place} for {platform}"
