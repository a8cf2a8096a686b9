"""Builds the guest image: a kernel that boots directly, and an initrd with the agent, crun and the modules they need.

Nothing in this package imports vc_core; it can be used alone.
"""

from vc_agent_grpc.image.builder import Guest, build, current, find, images, missing, remove
from vc_agent_grpc.image.errors import ImageError

__all__ = ["Guest", "ImageError", "build", "current", "find", "images", "missing", "remove"]
