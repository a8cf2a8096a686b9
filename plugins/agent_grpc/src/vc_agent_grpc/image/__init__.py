"""Builds the guest image: a kernel that boots directly, and an initrd with agent, crun and modules.

Of vc_core this package imports the contract only.
"""

from vc_agent_grpc.image.builder import (
    Guest,
    build,
    current,
    find,
    images,
    is_whole,
    missing,
    remove,
)
from vc_agent_grpc.image.errors import ImageError

__all__ = [
    "Guest",
    "ImageError",
    "build",
    "current",
    "find",
    "images",
    "is_whole",
    "missing",
    "remove",
]
