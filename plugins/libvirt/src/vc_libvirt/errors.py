"""The plugin's errors."""

from __future__ import annotations

from vc_core.spec import HypervisorError


class LibvirtError(HypervisorError):
    """libvirt refused or failed; the message quotes it.

    Attributes:
        code: libvirt's error code, VIR_ERR_* in virterror.h; 0 for an error of this plugin's own.
    """

    def __init__(self, message: str, code: int = 0) -> None:
        self.code = code
        super().__init__(f"{message} (libvirt error {code})" if code else message)


class ConnectionLost(LibvirtError):
    """The connection to libvirtd failed or was lost. The machines keep running."""
