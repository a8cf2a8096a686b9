"""What is written down of events, by many at once, and read while it is written."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from pathlib import Path

import pytest

from vc_core.engine.state import event_journal as module
from vc_core.engine.state.event_journal import Journal
from vc_core.spec import ExitStatus, PodRef


def ref(name: str) -> PodRef:
    return PodRef(id=name, run_dir=Path("/tmp"))


async def all_of(journal: Journal) -> list[str]:
    return [event.pod async for event in journal.events()]


async def test_what_was_told_is_read_by_another(tmp_path):
    await Journal(tmp_path).pod_created(ref("p"))
    await Journal(tmp_path).container_stopped(ref("p"), "c", ExitStatus(code=3))
    found = [event async for event in Journal(tmp_path).events()]
    assert [(one.event, one.pod, one.container, one.exit_code) for one in found] == [
        ("pod_created", "p", "", None),
        ("container_stopped", "p", "c", 3),
    ]


async def test_who_follows_loses_nothing_when_the_file_is_put_aside(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_LIMIT_BYTES", 500)
    journal = Journal(tmp_path)
    await journal.pod_created(ref("p0"))
    seen: list[str] = []
    came = asyncio.Event()

    async def follow() -> None:
        async with aclosing(Journal(tmp_path).events(follow=True)) as events:
            async for event in events:
                seen.append(event.pod)
                came.set()
                if event.pod == "p29":
                    return

    task = asyncio.create_task(follow())
    for number in range(1, 30):
        await came.wait()
        came.clear()
        await journal.pod_created(ref(f"p{number}"))
    await asyncio.wait_for(task, 20)
    assert seen == [f"p{number}" for number in range(30)]
    assert (tmp_path / ".events.1.jsonl").exists()
    assert len(await all_of(journal)) < 30  # the oldest are gone: it is bounded


async def test_half_a_line_is_read_when_it_is_whole(tmp_path):
    journal = Journal(tmp_path)
    await journal.pod_created(ref("p"))
    with (tmp_path / ".events.jsonl").open("a") as stream:
        stream.write('{"time_ns": 1, "eve')
    assert await all_of(journal) == ["p"]


async def test_a_damaged_line_is_left_out(tmp_path, caplog):
    journal = Journal(tmp_path)
    await journal.pod_created(ref("before"))
    with (tmp_path / ".events.jsonl").open("ab") as file:
        file.write(b'{"time_ns": 1, "eve\n{"time_ns": 1, "event": "\xff"}\n' + b"[" * 5000 + b"\n")
    await journal.pod_created(ref("after"))
    assert await all_of(journal) == ["before", "after"]
    assert caplog.text.count("an event is left out") == 3


async def test_on_a_full_disk_no_half_line_is_left(tmp_path, monkeypatch):
    journal = Journal(tmp_path)
    await journal.pod_created(ref("before"))
    write = module.os.write
    monkeypatch.setattr(module.os, "write", lambda handle, data: write(handle, data[:5]))
    with pytest.raises(OSError, match="No space left"):
        await journal.pod_created(ref("lost"))
    monkeypatch.undo()
    await journal.pod_created(ref("after"))
    assert await all_of(journal) == ["before", "after"]
