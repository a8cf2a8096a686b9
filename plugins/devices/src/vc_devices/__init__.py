"""Devices of the host for containers: disks, char devices, PCI devices, vhost-user backends."""

from vc_devices.block import BlockDevices
from vc_devices.char import CharDevices
from vc_devices.vfio import VfioDevices
from vc_devices.vhost_user import VhostUserDevices

__all__ = ["BlockDevices", "CharDevices", "VfioDevices", "VhostUserDevices"]
