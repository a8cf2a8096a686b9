"""What `start` does when a stand-in refuses, is silent or is not there."""

from __future__ import annotations

import asyncio

import pytest
from vc_runtime import starter
from vc_runtime.errors import RuntimeFailure
from vc_runtime.records import Record, Records

LIMIT_S = 60.0


@pytest.fixture
def records(tmp_path):
    made = Records(tmp_path / "root")
    made.add(Record(id="c", pod="", container="c", owns_pod=False, bundle="/b"))
    return made


async def _asked(records, answer, limit_s=LIMIT_S):
    """Returns what `ask` returns of a stand-in that answers so; None is silent."""
    kept = []

    async def serve(_, writer):
        if answer is None:
            kept.append(writer)
            return
        writer.write(answer)
        writer.close()

    with starter.listening(records, "c") as listener:
        async with await asyncio.start_unix_server(serve, sock=listener.dup()):
            try:
                return await starter.ask(records, "c", limit_s)
            finally:
                for writer in kept:
                    writer.close()


async def test_a_stand_in_that_is_not_there_or_refuses_has_not_started_it(records):
    assert not await starter.ask(records, "c", LIMIT_S)
    assert not await _asked(records, b"no such container")


async def test_a_stand_in_that_has_started_it_says_ok(records):
    assert await _asked(records, b"ok")


@pytest.mark.parametrize("answer", [b"", None])
async def test_who_does_not_answer_may_have_started_it(records, answer):
    with pytest.raises(RuntimeFailure, match="may run"):
        await _asked(records, answer, 0.2)
