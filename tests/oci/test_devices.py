"""Devices that bundles list."""

from __future__ import annotations

from pathlib import Path

from tests.oci.test_bundle import load
from vc_core.spec import DeviceNode


def test_devices_are_found_by_their_numbers(tmp_path):
    devices = [
        {
            "type": "c",
            "path": "/dev/fuse0",
            "major": 1,
            "minor": 3,
            "fileMode": 0o100620,
            "uid": 1,
            "gid": 2,
        },
        {"type": "b", "path": "/dev/absent", "major": 250, "minor": 9, "uid": 7},
        {"type": "c", "path": "/dev/full", "major": 250, "minor": 9},
        {"type": "p", "path": "/dev/pipe", "major": 8, "minor": 6, "fileMode": 0o600},
    ]
    container = load(tmp_path, linux={"devices": devices}).container
    (first,) = container.devices
    assert (first.path, first.destination) == (Path("/dev/null"), "/dev/fuse0")
    assert (first.mode, first.uid, first.gid) == (0o620, 1, 2)
    assert container.nodes == (
        DeviceNode(path="/dev/absent", kind="b", major=250, minor=9, uid=7),
        DeviceNode(path="/dev/full", kind="c", major=250, minor=9),
        DeviceNode(path="/dev/pipe", kind="p", mode=0o600),
    )
