"""Finds the image of a container, and pulls it as --pull says."""

from __future__ import annotations

from vc_core.engine.api.runtime import Runtime
from vc_core.images import Image
from vc_core.spec.errors import NotFound


async def image_of(runtime: Runtime, text: str, pull: str) -> Image:
    """Find an image by name.

    Args:
        runtime: an open runtime.
        text: the name, which is also the registry reference that is pulled.
        pull: "always", "missing" (pull an image that does not exist here) or "never".

    Raises:
        NotFound: it does not exist, and `pull` is "never".
        ImageError: it cannot be pulled.
    """
    if pull != "always":
        try:
            return await runtime.images.get(text)
        except NotFound:
            if pull == "never":
                raise
    from vc_core.cli.images import progress_shown
    from vc_core.images.sources import of_reference

    with progress_shown() as progress:
        return await runtime.images.take(of_reference(text), text.partition("@")[0], progress)
