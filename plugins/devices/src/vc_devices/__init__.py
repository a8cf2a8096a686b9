"""Devices of the host for containers: block devices and image files, char devices."""

from vc_devices.block import BlockDevices
from vc_devices.char import CharDevices

__all__ = ["BlockDevices", "CharDevices"]
