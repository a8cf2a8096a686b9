"""Our hypervisors and our agent keep the contract, on real machines."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.e2e.conftest import Settings
from vc_core.engine.wiring.catalog import Catalog
from vc_core.engine.wiring.options import instantiate
from vc_core.testing import (
    AgentContract,
    AgentSubject,
    HypervisorContract,
    HypervisorSubject,
    installed_guest,
)


def maker(family: str, name: str, settings: Settings) -> Callable[[], object]:
    return lambda: instantiate(Catalog().find(family, name), settings.get(f"{family}.{name}", {}))


@pytest.fixture
def make(hypervisor):
    return maker("hypervisor", str(hypervisor.get("use", {}).get("hypervisor", "qemu")), hypervisor)


class TestHypervisor(HypervisorContract):
    # What a capability declares absent is not run at all here: a test on real machines that was
    # skipped is a failure.
    test_a_fingerprint_tells_machines_apart = pytest.mark.needs("clone")(
        HypervisorContract.test_a_fingerprint_tells_machines_apart
    )
    test_a_tap_is_kept_until_the_machine_ends = pytest.mark.needs("nic")(
        HypervisorContract.test_a_tap_is_kept_until_the_machine_ends
    )

    @pytest.fixture
    def subject(self, make, tmp_path):
        return HypervisorSubject(make, installed_guest(), tmp_path)


@pytest.mark.only("qemu")
class TestAgent(AgentContract):
    @pytest.fixture
    def subject(self, make, busybox, tmp_path):
        return AgentSubject(maker("agent", "grpc", {}), make, busybox, tmp_path)
