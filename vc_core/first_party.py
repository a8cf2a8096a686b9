"""The one table that knows our own plugins by name: the defaults, and what to install when one is missing."""

from __future__ import annotations

DEFAULTS = {"hypervisor": "qemu", "agent": "grpc", "storage": "fs"}
DEFAULT_DEVICES = ("block", "char", "vfio", "vhost-user")

PACKAGES = ("vc_qemu", "vc_libvirt", "vc_agent_grpc", "vc_storage_fs", "vc_devices", "vc_observers")

EXTRAS = {
    ("hypervisor", "qemu"): "qemu",
    ("hypervisor", "libvirt"): "libvirt",
    ("agent", "grpc"): "agent-grpc",
    ("storage", "fs"): "storage-fs",
    ("device", "block"): "devices",
    ("device", "char"): "devices",
    ("device", "vfio"): "devices",
    ("device", "vhost-user"): "devices",
    ("observer", "chaos"): "observers",
    ("observer", "metrics"): "observers",
    ("observer", "policy"): "observers",
    ("observer", "trace"): "observers",
}


def install_hint(family: str, name: str) -> str:
    """What to type when a plugin is missing; empty for names that are not ours."""
    extra = EXTRAS.get((family, name))
    return f"; try: {pip_install(extra)}" if extra else ""


def pip_install(extra: str) -> str:
    """What to type for an extra: no package index has us, but a clone builds wheels."""
    return f"pip install --find-links .make/wheels 'virtcontainers[{extra}]', after 'make wheels' in a clone"
