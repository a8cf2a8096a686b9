"""The error of this package."""


class ImageError(Exception):
    """Building or using a guest image failed; the message gives the reason and the remedy."""
