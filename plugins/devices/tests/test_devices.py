"""Who claims which device, and what becomes of it."""

from __future__ import annotations

from pathlib import Path

import pytest
from vc_devices import BlockDevices, CharDevices

from vc_core.spec import DeviceError, Drive, HostDevice, PodRef


@pytest.fixture
def pod(tmp_path):
    return PodRef("p", tmp_path)


async def test_an_image_file_becomes_a_drive_with_an_id_of_its_own_16(pod, tmp_path):
    prefix = tmp_path / ("same-prefix-" * 5)
    devices = [HostDevice(Path(f"{prefix}{number}"), "/dev/x", read_only=True) for number in range(2)]
    for device in devices:
        device.path.touch()
        assert await BlockDevices().device_claims(pod, device)
        assert not await CharDevices().device_claims(pod, device)
    first, second = [await BlockDevices().device_prepare(pod, device) for device in devices]
    assert isinstance(first, Drive)
    assert first.id != second.id
    assert len(first.id) <= 31
    assert first.read_only


async def test_char_devices_are_refused_with_the_reason(pod):
    device = HostDevice(Path("/dev/null"), "/dev/null")
    assert await CharDevices().device_claims(pod, device)
    assert not await BlockDevices().device_claims(pod, device)
    with pytest.raises(DeviceError, match="belongs to the host's kernel"):
        await CharDevices().device_prepare(pod, device)
