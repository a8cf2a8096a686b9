"""libvirt as a virtcontainers hypervisor."""

from vc_libvirt.options import LibvirtOptions
from vc_libvirt.plugin import LibvirtHypervisor

__all__ = ["LibvirtHypervisor", "LibvirtOptions"]
