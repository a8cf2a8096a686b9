"""What goes wrong at libvirt."""

from __future__ import annotations


class LibvirtFailure(Exception):
    """libvirt refused or failed.

    Attributes:
        code: libvirt's own, as virterror.h has it (VIR_ERR_*); 0 for what we have found out
            ourselves.
    """

    def __init__(self, message: str, code: int = 0) -> None:
        self.code = code
        super().__init__(f"{message} (libvirt error {code})" if code else message)


class ConnectionLost(LibvirtFailure):
    """libvirtd does not answer, or no longer. The machines are not harmed by that."""
