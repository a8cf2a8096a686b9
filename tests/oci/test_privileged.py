"""Devices of containers that engines call privileged."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.oci.test_bundle import load
from vc_core.spec import HostDevice


@pytest.mark.parametrize(
    "rule", [{}, {"type": "a", "access": "rwm"}, {"major": -1, "minor": -1, "access": "rwm"}]
)
def test_a_privileged_container_gets_only_devices_of_any_kernel(tmp_path, caplog, rule):
    listed = [{"type": "b", "path": "/dev/vda", "major": 254, "minor": 0}]
    rules = [{"allow": False, "access": "rwm"}, {"allow": True, **rule}]
    listed.append({"type": "c", "path": "/dev/fuse", "major": 10, "minor": 229})
    # A disk of the host with the numbers of /dev/fuse, and under its name.
    listed.append({"type": "b", "path": "/dev/vda", "major": 10, "minor": 229})
    listed.append({"type": "b", "path": "/dev/fuse", "major": 10, "minor": 229})
    linux = {"devices": listed, "resources": {"devices": rules}}
    assert load(tmp_path, linux=linux).container.devices == (
        HostDevice(path=Path("/dev/fuse"), destination="/dev/fuse", mode=0o660),
    )
    assert "3 devices of the host are left out, as the container is privileged" in caplog.text
    del listed[2:]
    rules[1] = {"allow": True, "type": "b", "major": 254, "minor": 0}
    devices = load(tmp_path, linux=linux).container.devices
    assert [one.destination for one in devices] == ["/dev/vda", "/dev/fuse"]
