"""The sandbox keeps the contract of hypervisors."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from acme_hypervisor import AcmeHypervisor, AcmeOptions

from vc_core.testing import HypervisorContract, HypervisorSubject, installed_guest

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="a sandbox is made by root")


class TestAcme(HypervisorContract):
    @pytest.fixture
    def subject(self, tmp_path: Path) -> HypervisorSubject:
        return HypervisorSubject(lambda: AcmeHypervisor(AcmeOptions()), installed_guest(), tmp_path)
