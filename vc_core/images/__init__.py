"""Images: what containers start from, kept as one read-only file each that all pods share.

Whatever its source (a registry, an OCI layout, an archive, a tarball, a folder), an image is turned
once into an erofs file and the configuration that came with it. `pod` knows nothing of images: it
gets a root file system and a process.
"""

from vc_core.images.image import Image, ImageConfig, ImageError, Progress
from vc_core.images.store import Images

__all__ = ["Image", "ImageConfig", "ImageError", "Images", "Progress"]
