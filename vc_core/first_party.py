"""Names of the plugins of this repository: the defaults, and the extra that installs each."""

from __future__ import annotations

DEFAULTS = {"hypervisor": "qemu", "agent": "grpc", "storage": "fs"}
NO_NETWORK = "none"
"""The network of pods that have none: no plugin."""

DEFAULT_NETWORK = "pasta"
"""The network plugin of pods that ask for a network where the configuration names no plugin."""

CNI, GIVEN = "cni", "given"
"""The plugins of networks that are asked for by name, and by the path of a namespace."""

NAMESPACE_PREFIX = "ns:"
"""Stands before the path of a network namespace, where a pod asks for its network."""

DEFAULT_DEVICES = ("block", "char", "vfio", "vhost-user")

PACKAGES = (
    "vc_qemu",
    "vc_libvirt",
    "vc_agent_grpc",
    "vc_storage_fs",
    "vc_devices",
    "vc_network",
    "vc_observers",
)

EXTRAS = {
    ("hypervisor", "qemu"): "qemu",
    ("hypervisor", "libvirt"): "libvirt",
    ("agent", "grpc"): "agent-grpc",
    ("storage", "fs"): "storage-fs",
    ("device", "block"): "devices",
    ("device", "char"): "devices",
    ("device", "vfio"): "devices",
    ("device", "vhost-user"): "devices",
    ("network", "cni"): "network",
    ("network", "given"): "network",
    ("network", "pasta"): "network",
    ("observer", "chaos"): "observers",
    ("observer", "metrics"): "observers",
    ("observer", "policy"): "observers",
    ("observer", "trace"): "observers",
}


def install_hint(family: str, name: str) -> str:
    """Hint to append to an error about a missing plugin; empty for third-party plugins."""
    extra = EXTRAS.get((family, name))
    return f"; run: {pip_install(extra)}" if extra else ""


def pip_install(extra: str) -> str:
    """Command that installs an extra from the wheels that a clone builds."""
    return (
        f"pip install --find-links .make/wheels 'virtcontainers[{extra}]' "
        "(after 'make wheels' in a clone)"
    )
