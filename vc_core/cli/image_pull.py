"""The image that a container is made from: one that is here, or that --pull fetches."""

from __future__ import annotations

from vc_core.engine.api.runtime import Runtime
from vc_core.images import Image
from vc_core.spec.errors import NotFound


async def image_of(runtime: Runtime, text: str, pull: str) -> Image:
    """An image by its name.

    Args:
        runtime: an open one.
        text: the name; with a registry's address where it comes from one.
        pull: "always" fetches it first, "missing" when it is not here, "never" does not.

    Raises:
        NotFound: it is not here, and is not to be fetched.
        ImageError: it cannot be fetched.
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
