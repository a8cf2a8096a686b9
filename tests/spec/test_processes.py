"""A process is known by more than its number."""

from __future__ import annotations

import asyncio
import os
import platform
import signal
import sys
import uuid
from pathlib import Path

import pytest

from vc_core.driver_kit import HostProcess, host_process
from vc_core.driver_kit.host_process import end_child
from vc_core.driver_kit.timeouts import timeout_after

SYS_EXIT = {"x86_64": 60, "aarch64": 93}  # of one thread; that of Python ends all
WAITS = "import signal; print(flush=True); signal.pause()"


def start(script: str, *words: str) -> HostProcess:
    """Runs Python until it has written a line."""
    ready, output = os.pipe()
    command = [sys.executable, "-c", script, *words]
    actions = [(os.POSIX_SPAWN_DUP2, output, 1)]
    found = HostProcess.of(
        os.posix_spawn(command[0], command, dict(os.environ), file_actions=actions)
    )
    os.close(output)
    assert os.read(ready, 1) == b"\n"
    os.close(ready)
    return found


async def test_a_reused_number_is_not_taken_for_it():
    found = start(WAITS)
    assert found.is_alive()
    other = HostProcess(found.pid, found.start_ticks + 1)
    assert not other.is_alive()
    other.send(signal.SIGKILL)
    await other.ended()
    assert found.is_alive()
    await found.kill(5)
    assert not found.is_alive()


async def test_a_zombie_is_not_alive():
    found = start("print(flush=True); raise SystemExit(3)")
    os.waitid(os.P_PID, found.pid, os.WEXITED | os.WNOWAIT)  # noqa: ASYNC222
    assert not found.is_alive()
    await found.ended()
    with pytest.raises(ChildProcessError):
        os.waitpid(found.pid, os.WNOHANG)  # noqa: ASYNC222


async def test_one_that_minds_no_signal_is_killed():
    found = start("import signal; signal.signal(15, signal.SIG_IGN);" + WAITS)
    assert not await found.ended_within(0.05)
    await found.kill(0.05)
    assert not found.is_alive()


async def test_a_lost_one_is_found_by_its_words():
    marker = str(uuid.uuid4())
    found = start(WAITS, "-uuid", marker)
    assert HostProcess.find("-uuid", marker) == found
    assert HostProcess.find("-uuid", marker, "-other") is None
    await found.kill(5)
    assert HostProcess.find("-uuid", marker) is None


async def _child(script: str) -> asyncio.subprocess.Process:
    pipe = asyncio.subprocess.PIPE
    return await asyncio.create_subprocess_exec(
        "sh",
        "-c",
        script,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=pipe,
        stderr=pipe,
        start_new_session=True,
    )


async def test_a_child_whose_output_nobody_reads_is_ended():
    for script in ("exec yes", "yes >&2", "yes & wait", "exit 3"):
        child = await _child(script)
        async with asyncio.timeout(20):
            if script != "exit 3":
                stream = child.stderr if ">&2" in script else child.stdout
                await stream.read(1)
            await end_child(child, is_leader=True)
        assert child.returncode is not None


async def test_pipes_that_somebody_else_holds_are_closed_and_not_waited_for(monkeypatch):
    monkeypatch.setattr(host_process, "_PIPES_S", 0.1)
    child = await _child("setsid sh -c 'echo $$; exec sleep 1000' & wait")
    holder = int(await child.stdout.readline())
    async with asyncio.timeout(20):
        await end_child(child, is_leader=True)
    assert child.returncode == -signal.SIGKILL
    assert all(stream._transport.is_closing() for stream in (child.stdout, child.stderr))
    os.kill(holder, signal.SIGKILL)


async def test_a_process_whose_main_thread_has_ended_is_alive_and_is_ended():
    process = start(
        "import ctypes, threading\n"
        "threading.Thread(target=threading.Event().wait).start()\n"
        "print(flush=True)\n"
        f"ctypes.CDLL(None).syscall({SYS_EXIT[platform.machine()]}, 0)\n"
    )
    stat = Path(f"/proc/{process.pid}/stat")
    while stat.read_text().rpartition(")")[2].split()[0] != "Z":
        pass
    assert process.is_alive()
    await process.kill(0.1)
    assert not process.is_alive()


async def test_a_deadline_holds_in_the_clean_up_of_a_cancelled_task():
    """As `pod delete` after Ctrl-C: a machine that does not end in time is killed all the same."""
    outcomes = []

    async def cleans_up():
        try:
            await asyncio.Event().wait()
        finally:
            outcomes.append(await HostProcess.this().ended_within(0.01))
            try:
                async with timeout_after(0.01):
                    await asyncio.Event().wait()
            except TimeoutError:
                outcomes.append("in time")

    task = asyncio.create_task(cleans_up())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert outcomes == [False, "in time"]
