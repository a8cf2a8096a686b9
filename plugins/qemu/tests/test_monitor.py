"""Connections to QEMU's monitor, which is played by a socket."""

from __future__ import annotations

import socket

import pytest
from vc_qemu import monitor
from vc_qemu.errors import QemuError


async def test_a_monitor_that_accepts_nothing_is_told_as_such(tmp_path):
    path = tmp_path / "qmp.sock"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen(0)
        with socket.socket(socket.AF_UNIX) as waiting:
            waiting.connect(str(path))
            for _ in range(2):
                with pytest.raises(QemuError, match="does not answer: it accepts no connection"):
                    async with monitor.connected(path):
                        pytest.fail("nobody is there")


async def test_a_monitor_that_is_gone_is_told_as_such(tmp_path):
    with pytest.raises(QemuError, match="does not answer: No such file or directory"):
        async with monitor.connected(tmp_path / "qmp.sock"):
            pytest.fail("nobody is there")
