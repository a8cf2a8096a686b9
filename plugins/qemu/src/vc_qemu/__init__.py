"""QEMU as a virtcontainers hypervisor."""

from vc_qemu.options import QemuOptions
from vc_qemu.plugin import QemuHypervisor

__all__ = ["QemuHypervisor", "QemuOptions"]
