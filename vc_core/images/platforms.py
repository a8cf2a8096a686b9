"""The platform of an image: operating system and architecture, in the names of the image-spec."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from vc_core.images.image import ImageError
from vc_core.spec.errors import InvalidRequest

_GO_NAMES = {
    "x86_64": "amd64",
    "x86-64": "amd64",
    "aarch64": "arm64",
    "armhf": "arm",
    "i386": "386",
    "i686": "386",
}


class Platform(Struct, frozen=True):
    """A Linux platform.

    Attributes:
        architecture: in Go's names, such as "amd64" or "arm64".
        variant: variant of the architecture, such as "v7"; empty for any.
    """

    architecture: str
    variant: str = ""

    def __str__(self) -> str:
        return "/".join(filter(None, ("linux", self.architecture, self.variant)))

    @classmethod
    def parse(cls, text: str) -> Platform | None:
        """Parse a platform such as `linux/arm64`, `arm64` or `linux/arm/v7`; None if it is empty.

        Raises:
            InvalidRequest: it is invalid, or not Linux.
        """
        if not text:
            return None
        parts = text.lower().split("/")
        if len(parts) == 1:
            parts.insert(0, "linux")
        if len(parts) > 3 or not all(
            part.replace("-", "").replace("_", "").isalnum() for part in parts
        ):
            raise InvalidRequest(
                f"--platform {text!r} is not OS/ARCHITECTURE; use e.g. linux/arm64"
            )
        if parts[0] != "linux":
            raise InvalidRequest(
                f"--platform {text!r} is not supported; only Linux images run here"
            )
        return cls(_GO_NAMES.get(parts[1], parts[1]), *parts[2:])

    def fits(self, document: Mapping[str, Any]) -> bool:
        """Whether the platform of a descriptor or image configuration matches."""
        platform = str(document.get("os", "")), str(document.get("architecture", ""))
        return platform == ("linux", self.architecture) and self.variant in (
            "",
            document.get("variant") or self.variant,
        )


def of_machine() -> Platform:
    """The platform of this machine."""
    return Platform(_GO_NAMES.get(platform.machine(), platform.machine()))


def require(document: Mapping[str, Any], wanted: Platform | None, source: str) -> None:
    """Check that an image is for a platform.

    Args:
        document: configuration of the image; accepted if it names no architecture.
        wanted: the platform; None for that of this machine.
        source: where the image came from, for messages.

    Raises:
        ImageError: the image is for another platform.
    """
    system, architecture = (
        str(document.get("os") or "linux"),
        str(document.get("architecture") or ""),
    )
    if system != "linux":
        raise ImageError(f"{source} is an image for {system}; only Linux images run here")
    if not architecture or (wanted or of_machine()).fits({**document, "os": system}):
        return
    name = "/".join(filter(None, (system, architecture, str(document.get("variant") or ""))))
    if wanted is None:
        raise ImageError(
            f"{source} is an image for {name}, and this machine is {of_machine()}; "
            f"use '--platform {name}' to accept it"
        )
    raise ImageError(f"{source} is an image for {name}, not for {wanted}; use '--platform {name}'")
