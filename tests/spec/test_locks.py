"""File locks: between processes, with a deadline, on the file of that name."""

from __future__ import annotations

import asyncio
import subprocess
import sys

import pytest

from vc_core.driver_kit import LockTimeout, lock_file

HOLD = """
import fcntl, sys
held = open(sys.argv[1], "w")
fcntl.flock(held, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def other_process(tmp_path):
    held = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / "lock")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert held.stdout.readline() == b"held\n"
    yield held
    held.stdin.close()
    held.stdout.close()
    held.wait()


async def test_readers_share_and_a_writer_is_alone(tmp_path):
    path = tmp_path / "lock"
    first = await lock_file(path, exclusive=False, timeout_s=1)
    second = await lock_file(path, exclusive=False, timeout_s=1)
    with pytest.raises(LockTimeout):
        await lock_file(path, exclusive=True, timeout_s=0.05)
    await first.release()
    await second.release()
    await second.release()
    async with await lock_file(path, exclusive=True, timeout_s=1):
        with pytest.raises(LockTimeout):
            await lock_file(path, exclusive=False, timeout_s=0.05)


async def test_another_process_is_waited_for(tmp_path, other_process):
    waiting = asyncio.create_task(lock_file(tmp_path / "lock", exclusive=True, timeout_s=30))
    await asyncio.sleep(0)
    assert not waiting.done()
    other_process.stdin.close()
    await (await waiting).release()


async def test_a_wait_that_was_given_up_takes_no_lock_later(tmp_path, other_process):
    with pytest.raises(LockTimeout):
        await lock_file(tmp_path / "lock", exclusive=True, timeout_s=0.05)
    other_process.stdin.close()
    other_process.wait()
    await (await lock_file(tmp_path / "lock", exclusive=True, timeout_s=10)).release()


async def test_a_lock_on_a_deleted_file_is_no_lock(tmp_path):
    path = tmp_path / "lock"
    first = await lock_file(path, exclusive=True, timeout_s=1)
    waiting = asyncio.create_task(lock_file(path, exclusive=True, timeout_s=10))
    await asyncio.sleep(0)
    path.unlink()
    await first.release()
    second = await waiting
    assert path.exists()
    with pytest.raises(LockTimeout):
        await lock_file(path, exclusive=True, timeout_s=0.05)
    await second.release()
