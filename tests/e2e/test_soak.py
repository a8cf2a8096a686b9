"""A few lives of pods with faults; `make soak` has thousands (docs/reliability.md)."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import tempfile
from pathlib import Path

import pytest

from tests.soak.lives import Soak
from tests.soak.report import Report

pytestmark = [
    pytest.mark.only("qemu"),
    pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts a file system for it"),
    pytest.mark.timeout(900),
]


@pytest.mark.usefixtures("hypervisor")
def test_lives_with_faults_leave_nothing(templates, caplog):
    # pytest keeps records, which keep the errors in them, which keep closed connections.
    caplog.set_level(logging.CRITICAL)
    folder = Path(tempfile.mkdtemp(prefix="vs-", dir="/dev/shm"))
    report = Report(seed=22)

    async def live() -> None:
        kinds = {"api": 3, "client": 1}
        async with Soak(folder, templates, report, kinds, warm_up=2, is_alone=False) as soak:
            await soak.run(5)

    asyncio.run(live())
    shutil.rmtree(folder)
    assert report.failures == []
    assert report.lives == 5
    assert report.descriptors <= 0
