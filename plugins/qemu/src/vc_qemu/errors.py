"""The one error of this package's heart; plugin.py turns it into the contract's."""


class QemuError(Exception):
    """QEMU refused, failed or died; the message has its own words."""


class NoSuchDeviceError(QemuError):
    """The device is not in the machine (any more)."""
