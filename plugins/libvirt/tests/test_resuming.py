"""Resuming a domain that may run already."""

from __future__ import annotations

import libvirt
import pytest
from vc_libvirt.plugin import _resume


class Refusing:
    """A domain that libvirt does not resume."""

    def __init__(self, state: int) -> None:
        self._state = state

    def resume(self) -> None:
        raise libvirt.libvirtError("Requested operation is not valid: domain is already running")

    def state(self) -> list[int]:
        return [self._state, 0]


def test_a_domain_that_libvirt_has_resumed_itself_is_no_error():
    _resume(Refusing(libvirt.VIR_DOMAIN_RUNNING))
    with pytest.raises(libvirt.libvirtError):
        _resume(Refusing(libvirt.VIR_DOMAIN_PAUSED))
