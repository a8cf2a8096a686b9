"""A place to get one image from: its configuration and its tree of files."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path

from vc_core.images.image import Progress
from vc_core.images.platforms import Platform

TREE = "tree"
"""The folder with an image's files, in that into which it is fetched."""


@dataclass(frozen=True)
class Material:
    """What an image is made of.

    Attributes:
        config: its configuration as it came, whose digest is the image's id.
        tree: its files.
    """

    config: bytes
    tree: Path


class Source(ABC):
    """A place to get one image from.

    Attributes:
        key: of the place: two that are alike bring the same.
        platform: the kind of machine that the image must be for; None for this machine's.
    """

    key: str
    platform: Platform | None = None

    async def config_digest(self) -> str:
        """The image's id, where that is to be had without fetching it; else empty."""
        return ""

    @abstractmethod
    async def fetch(self, into: Path, progress: Progress) -> Material:
        """Brings it. Raises ImageError, or InvalidRequest for what is no image.

        Args:
            into: an empty folder for whatever is needed on the way; somebody else removes it.
            progress: is told.
        """


def place_key(place: str, platform: Platform | None) -> str:
    """The `Source.key` of an image for one kind of machine at a place."""
    return place if platform is None else f"{place} for {platform}"
