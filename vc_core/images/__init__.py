"""Images: root file systems with a configuration, each kept as one read-only file.

An image from any source (a registry, an OCI layout, an archive, a tarball, a directory) is
converted once into an erofs file, which all pods share. Pods know nothing of images: they get a
root file system and a process.
"""

from vc_core.images.image import Image, ImageConfig, ImageError, Progress
from vc_core.images.store import Images

__all__ = ["Image", "ImageConfig", "ImageError", "Images", "Progress"]
