"""Images and volumes that containers use, and that must not be removed."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from vc_core.engine.api.pod_listing import PodStatus
from vc_core.images import Image


def used_roots(pods: Iterable[PodStatus], images: Iterable[Image]) -> set[Path]:
    """Returns the root file systems of containers, and of images that pods refer to."""
    pods = tuple(pods)
    pod_images = {pod.config.image for pod in pods}
    roots = {container.spec.rootfs.path for pod in pods for container in pod.containers}
    return roots | {
        image.rootfs
        for image in images
        if image.id in pod_images or image.rootfs.resolve() in roots
    }


def used_mount_sources(pods: Iterable[PodStatus]) -> set[Path]:
    """Returns the paths of the host that containers have mounted."""
    return {
        mount.source
        for pod in pods
        for container in pod.containers
        for mount in container.spec.mounts
    }
