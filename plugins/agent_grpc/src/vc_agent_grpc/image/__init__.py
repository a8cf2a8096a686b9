"""The guest image: a kernel that boots directly, and an initrd with agent, crun and modules.

builder.py builds it, cache.py finds it. Of vc_core this package imports the contract only.
"""

from vc_agent_grpc.image.cache import Guest, current, find, images, is_whole, remove
from vc_agent_grpc.image.errors import ImageError

__all__ = [
    "Guest",
    "ImageError",
    "current",
    "find",
    "images",
    "is_whole",
    "remove",
]
