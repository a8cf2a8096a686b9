"""Which kind of machine an image is for: an operating system and an architecture, as the image-spec names them."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

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


@dataclass(frozen=True)
class Platform:
    """A kind of machine.

    Attributes:
        architecture: as Go names it: "amd64", "arm64".
        variant: of the architecture, as in "v7"; empty for any.
    """

    architecture: str
    variant: str = ""

    def __str__(self) -> str:
        return "/".join(filter(None, ("linux", self.architecture, self.variant)))

    @classmethod
    def parse(cls, text: str) -> Platform | None:
        """Out of `linux/arm64`, `arm64` or `linux/arm/v7`; None when the text is empty.

        Raises:
            InvalidRequest: it is none of these, or not Linux.
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
                f"--platform {text!r} is not OS/ARCHITECTURE; write it as in linux/arm64"
            )
        if parts[0] != "linux":
            raise InvalidRequest(
                f"--platform {text!r} is not for Linux; only images for Linux run here"
            )
        return cls(_GO_NAMES.get(parts[1], parts[1]), *parts[2:])

    def fits(self, document: Mapping[str, Any]) -> bool:
        """Whether a descriptor's `platform`, or an image's configuration, is of this kind."""
        found = str(document.get("os", "")), str(document.get("architecture", ""))
        return found == ("linux", self.architecture) and self.variant in (
            "",
            document.get("variant") or self.variant,
        )


def of_machine() -> Platform:
    """This machine's."""
    return Platform(_GO_NAMES.get(platform.machine(), platform.machine()))


def require(document: Mapping[str, Any], wanted: Platform | None, source: str) -> None:
    """Refuses an image for another kind of machine than the one asked for.

    Args:
        document: the image's configuration; one that names no architecture is accepted.
        wanted: None for this machine's.
        source: where the image came from, for messages.

    Raises:
        ImageError: naming the image's platform, and the option that takes it.
    """
    system, architecture = (
        str(document.get("os") or "linux"),
        str(document.get("architecture") or ""),
    )
    if system != "linux":
        raise ImageError(f"{source} is an image for {system}; only images for Linux run here")
    if not architecture or (wanted or of_machine()).fits({**document, "os": system}):
        return
    name = "/".join(filter(None, (system, architecture, str(document.get("variant") or ""))))
    if wanted is None:
        raise ImageError(
            f"{source} is an image for {name}, and this machine is {of_machine()}; "
            f"'--platform {name}' takes it nonetheless"
        )
    raise ImageError(f"{source} is an image for {name}, not for {wanted}; it has no other")
