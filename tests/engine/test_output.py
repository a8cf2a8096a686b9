"""How much of what a process writes is held in memory."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from vc_core.engine.api import process as processes
from vc_core.engine.api.process import End
from vc_core.spec import AgentError, ContainerSpec, ProcessSpec, Rootfs, Stdio


async def test_a_process_that_writes_more_than_is_collected_is_killed(runtime):
    async with runtime.pod("p") as pod:
        result = await pod.run("endless", stdin=b"x" * 100, max_output_bytes=10)
        assert (result.end, result.stdout, result.signal) == (
            End.TOO_MUCH_OUTPUT,
            b"x" * 10,
            signal.SIGKILL,
        )
        assert (await pod.run("cat", stdin=b"x" * 10, max_output_bytes=10)).end is End.EXITED
        assert (await pod.status()).containers == ()


async def test_what_nobody_reads_of_the_other_stream_is_kept_up_to_a_size(runtime, monkeypatch):
    monkeypatch.setattr(processes, "MAX_OUTPUT_BYTES", 1000)
    async with runtime.pod("p") as pod:
        spec = ContainerSpec(
            id="c",
            rootfs=Rootfs(path=Path("/")),
            process=ProcessSpec(args=("endless",)),
            stdio=Stdio.PIPES,
        )
        await pod.create_container(spec)
        await pod.container("c").start()
        process = await pod.container("c").process()
        await process.write(b"x" * 100)
        await process.write(b"x" * 1000)
        with pytest.raises(AgentError, match="is waiting on stdout, which is not read; use output"):
            async for _ in process.stderr:
                pass
        await process.close()


async def test_a_process_of_exec_is_found_by_its_token(runtime, open_runtime):
    async with runtime.pod("p") as pod:
        await pod.create_container(
            ContainerSpec(
                id="c", rootfs=Rootfs(path=Path("/")), process=ProcessSpec(args=("endless",))
            )
        )
        await pod.container("c").start()
        made = await pod.container("c").exec(ProcessSpec(args=("cat",)))
        async with open_runtime() as other:
            found = await (await other.get("p")).container("c").process(token=made.token)
            assert (await found.communicate(b"given")).stdout == b"given"
