"""The one error of this package."""


class ImageError(Exception):
    """A guest image cannot be built or used; the message says why and what to do."""
