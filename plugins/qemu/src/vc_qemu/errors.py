"""The plugin's errors."""

from __future__ import annotations

from vc_core.spec import HypervisorError


class QemuError(HypervisorError):
    """QEMU refused, failed or ended; the message quotes it."""


class NoSuchDeviceError(QemuError):
    """The device is not in the machine, or not any more."""
