"""Files of containers on a mock whose guest answers what a test says."""

from __future__ import annotations

import asyncio
import json
import tarfile
import tracemalloc

import pytest
from msgspec import structs

from tests.engine.archives import packed
from tests.engine.specs import container
from vc_core.defaults import Deadlines
from vc_core.engine.api import file_entries
from vc_core.spec import (
    AgentError,
    Capability,
    FilesVerb,
    InvalidRequest,
    NotFound,
    OperationTimeout,
    StreamName,
    hookimpl,
)
from vc_core.testing import mock_runtime
from vc_core.testing.mocks.agent import MockAgent
from vc_core.testing.mocks.world import MockProcess

OUT, ERR = StreamName.STDOUT, StreamName.STDERR


class Streams:
    """Gives an answer; keeps what is written."""

    def __init__(self, process, answer):
        self._process, self._answer = process, answer

    async def write(self, data):
        self._process.got += data
        if self._process.is_deaf:
            await asyncio.Event().wait()

    async def close_stdin(self):
        pass

    async def chunks(self):
        for item in self._answer:
            if isinstance(item, asyncio.Event):
                item.set()
                await asyncio.Event().wait()
            else:
                yield item

    async def close(self):
        self._process.client = None


class HostileAgent(MockAgent):
    """Answers every request for files alike."""

    answer = ()
    code = 0
    is_deaf = False

    @hookimpl
    async def agent_capabilities(self, pod):
        return await super().agent_capabilities(pod) | {Capability.FILES}

    @hookimpl
    async def agent_serve_files(self, pod, container_id, token, request):
        found = self._container(await self._machine(pod), container_id)
        ran = found.processes[token] = MockProcess((request.verb, request.path, request.name))
        ran.got, ran.is_deaf = b"", self.is_deaf
        if not any(isinstance(item, asyncio.Event) for item in self.answer) and not self.is_deaf:
            ran.end(self.code)

    @hookimpl
    async def agent_attach(self, pod, container_id, token):
        process = self._process(self._container(await self._machine(pod), container_id), token)
        return (
            Streams(process, self.answer)
            if hasattr(process, "got")
            else await super().agent_attach(pod, container_id, token)
        )


@pytest.fixture
async def guest(world, config):
    """Opens the files of a container in a guest that answers so."""
    opened = []

    async def open_files(*answer, code=0, deadline_s=60.0, is_deaf=False):
        agent = type(
            "Agent",
            (HostileAgent,),
            {"answer": answer, "code": code, "world": world, "is_deaf": is_deaf},
        )
        deadlines = Deadlines(operations={"agent_serve_files": deadline_s})
        changed = structs.replace(config, deadlines=deadlines)
        runtime = mock_runtime(world, changed, {("agent", "mock"): agent})
        await runtime.__aenter__()
        pod = await runtime.create(f"p{len(opened)}")
        opened.append((runtime, pod))
        await pod.create_container(container())
        await pod.start()
        return pod.files

    yield open_files
    for runtime, pod in opened:
        await pod.delete(force=True)
        await runtime.__aexit__(None, None, None)


def processes(world):
    return [
        one
        for machine in world.machines.values()
        for found in machine.containers.values()
        for one in found.processes.values()
        if hasattr(one, "got")
    ]


async def test_a_hostile_guest_writes_nothing_beside_the_target(guest, tmp_path):
    evil = packed({"name": "x", "data": b"good"}, {"name": ".bashrc", "data": b"evil"})
    files = await guest((OUT, evil))
    with pytest.raises(AgentError, match=r"\.bashrc, which is not below x"):
        await files.copy_out("/x", tmp_path / "x")
    assert not (tmp_path / ".bashrc").exists()


@pytest.mark.parametrize(
    ("code", "kind"),
    [(1, AgentError), (2, NotFound), (3, InvalidRequest), (77, AgentError), (-1, AgentError)],
)
async def test_errors_are_told_by_exit_codes_and_their_text_is_harmless(
    guest, tmp_path, code, kind
):
    files = await guest(
        (ERR, b"\x1b[2Jno file (os error 2)" + b"y" * (1 << 20) + b"\nsecond"), code=code
    )
    for call in (
        files.read("/x"),
        files.list("/x"),
        files.copy_out("/x", tmp_path / "x"),
        files.write("/x", b""),
    ):
        with pytest.raises(kind, match=r"\\x1b\[2Jno file \(os error 2\)y+\.\.\.$") as told:
            await call
        assert type(told.value) is kind
        assert len(str(told.value)) < 500


GOOD = {"name": "a", "kind": "file", "size": 1, "mode": 0o644, "uid": 0, "gid": 0, "mtime_ns": 1}


@pytest.mark.parametrize(
    "line",
    [
        b"{}",
        b"[1]",
        b"no JSON",
        b"\xff",
        b"[" * 60000,
        b"x" * (70 << 10),
        *(
            json.dumps({**GOOD, **changed}).encode()
            for changed in (
                {"name": "../evil"},
                {"name": "a/b"},
                {"name": ".."},
                {"name": ""},
                {"name": "a\0b"},
                {"kind": "odd"},
                {"size": -1},
                {"size": 1 << 90},
                {"mode": 0o10000},
                {"uid": -1},
                {"mtime_ns": 1 << 70},
            )
        ),
    ],
)
async def test_lines_that_describe_no_file_are_told(guest, line):
    files = await guest((OUT, line + b"\n"))
    with pytest.raises(AgentError, match="the guest's agent has sent"):
        await files.list("/")
    if line != b"{}":  # so begins a watch
        with pytest.raises(AgentError, match="the guest's agent has sent"):
            await anext(files.watch("/"))


async def test_what_is_collected_is_bounded(guest, monkeypatch, tmp_path):
    monkeypatch.setattr(file_entries, "MOST_ENTRIES", 100)
    line = json.dumps(GOOD).encode() + b"\n"
    with pytest.raises(AgentError, match="more than 100 files"):
        await (await guest(*[(OUT, line * 10)] * 50)).list("/")
    endless = [(OUT, b"x" * (1 << 20))] * 4000
    info = tarfile.TarInfo("x")
    info.size = 4000 << 20
    head = (OUT, info.tobuf(tarfile.GNU_FORMAT))
    tracemalloc.start()
    try:
        with pytest.raises(InvalidRequest, match="read gives 67108864 at most; use copy_out"):
            await (await guest(head, *endless)).read("/x")
        with pytest.raises(AgentError, match="a line of more than"):
            await (await guest(*endless)).list("/")
        assert tracemalloc.get_traced_memory()[1] < 32 << 20
    finally:
        tracemalloc.stop()


async def test_a_guest_that_says_nothing_is_given_up_and_its_process_killed(guest, world, tmp_path):
    files = await guest((OUT, packed({"name": "x"})[:300]), asyncio.Event(), deadline_s=0.5)
    for call in (
        files.read("/x"),
        files.list("/x"),
        files.copy_out("/x", tmp_path / "x"),
        files.write("/x", b""),
    ):
        with pytest.raises((OperationTimeout, AgentError)):
            await call
    deaf = await guest(asyncio.Event(), deadline_s=0.5, is_deaf=True)
    with pytest.raises(OperationTimeout, match=r"raise deadlines\.operations\.agent_serve_files"):
        await deaf.write("/x", b"")
    assert [one.status.signal for one in processes(world)] == [9] * len(processes(world))


async def test_what_is_sent_to_somebody_who_refuses_ends_with_the_refusal(guest, tmp_path):
    (tmp_path / "large").write_bytes(bytes(5 << 20))
    files = await guest((ERR, b"nothing there"), code=2)
    async with asyncio.timeout(20):
        with pytest.raises(NotFound, match="nothing there"):
            await files.copy_in(tmp_path / "large", "/nodir/x")


async def test_a_copy_can_be_given_up_while_the_guest_does_nothing(guest, world, tmp_path):
    (tmp_path / "large").write_bytes(bytes(5 << 20))
    waits = asyncio.Event()
    files = await guest(waits, is_deaf=True)
    for call in (
        files.copy_in(tmp_path / "large", "/x"),
        files.copy_out("/x", tmp_path / "x"),
        files.read("/x"),
    ):
        waits.clear()
        work = asyncio.create_task(call)
        await waits.wait()
        work.cancel()
        async with asyncio.timeout(20):
            with pytest.raises(asyncio.CancelledError):
                await work
    assert [one.status.signal for one in processes(world)] == [9, 9, 9]


async def test_a_source_that_cannot_be_read_is_told_and_the_guest_not_waited_for(guest, world):
    async def failing():
        yield b"half"
        raise ZeroDivisionError

    files = await guest(asyncio.Event())
    async with asyncio.timeout(20):
        with pytest.raises(ZeroDivisionError):
            await files.unarchive("/x", failing())
    assert processes(world)[0].status.signal == 9


@pytest.mark.parametrize(
    ("path", "asked"),
    [
        ("/a/b", (FilesVerb.WRITE, "/", ".")),
        ("/a/../b", (FilesVerb.WRITE, "/a/../", ".")),
    ],
)
async def test_a_file_is_written_below_a_folder_that_is_there(guest, world, path, asked):
    files = await guest()
    await files.write(path, b"")
    assert processes(world)[0].args == asked


@pytest.mark.parametrize("path", ["a", "", "/a\0b", "/a\udcff"])
async def test_paths_that_are_none_are_told(guest, path):
    files = await guest()
    for call in (files.read(path), files.list(path), files.write(path, b"")):
        with pytest.raises(InvalidRequest):
            await call
