"""Programs that use the API against a hostile guest: each call ends, with a right answer or an
error of ours.
"""

from __future__ import annotations

from collections.abc import Callable

import grpc
import pytest
from vc_agent_grpc._generated import agent_pb2 as pb

from tests.hostile.agent import Agent
from tests.hostile.answers import breaks, drops, refuses, says, silent, writes, writes_on
from tests.hostile.archives import ARCHIVES
from tests.hostile.conftest import DEADLINE_S, HostileHost

_MIB = 1 << 20
_REFUSALS = (
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.CANCELLED,
)

Misbehaviour = Callable[[Agent], None]


def everything(answer: Callable[[Agent], object]) -> Misbehaviour:
    def misbehave(agent: Agent) -> None:
        agent.all_wrong = answer(agent)

    return misbehave


def only(**answers: object) -> Misbehaviour:
    def misbehave(agent: Agent) -> None:
        agent.wrong = dict(answers)

    return misbehave


_WAIT_77 = says(pb.WaitReply(exit_code=999, signal=77).SerializeToString())
_HUGE = (1 << 64) - 1
_LISTS = {
    "ListContainers": says(
        pb.ListContainersReply(containers=[pb.ContainerInfo(health=77)]).SerializeToString()
    ),
    "ListProcesses": says(
        pb.ListProcessesReply(processes=[pb.ProcessInfo(cpu_ns=_HUGE)]).SerializeToString()
    ),
    "ContainerStats": says(pb.ContainerStatsReply(memory_bytes=_HUGE).SerializeToString()),
}
_LINE = b'{"name":"a","kind":"file","size":1,"mode":420,"uid":0,"gid":0,"mtime_ns":0}\n'

ANSWERING: dict[str, Misbehaviour] = {
    **{
        f"refuses-{code.name.lower()}": everything(lambda _, code=code: refuses(code))
        for code in _REFUSALS
    },
    "no-message": everything(lambda _: says(b"\xff" * 100)),
    "large-message": everything(lambda _: says(bytes(64 * _MIB))),
    "many-rows": everything(lambda _: says(b"\x0a\x02" * 500_000)),
}
STREAMS: dict[str, Misbehaviour] = {
    "output-without-end": only(ReadOutput=writes_on(b"x" * (256 << 10))),
    "lines-without-end": only(ReadOutput=writes_on(_LINE * 1000)),
    "breaks": only(ReadOutput=breaks),
    "no-chunk": only(ReadOutput=says()),
    "a-name-that-leads-out": only(ReadOutput=writes(b"{}\n", _LINE.replace(b'"a"', b'"../a"'))),
    "impossible-ends": only(Wait=_WAIT_77),
    "impossible-lists": only(**_LISTS),
    "an-archive-of-a-path-above": only(ReadOutput=ARCHIVES["a-path-above"]),
}


def check(
    hostile: HostileHost,
    kind: str,
    misbehaviours: dict[str, Misbehaviour],
    deadline_s: float = DEADLINE_S,
) -> None:
    """One program meets them one after the other, each with a pod of its own."""
    wrong = {}
    before = hostile.outside()
    with hostile.program(kind) as program:
        for number, (name, misbehave) in enumerate(misbehaviours.items()):
            pod_id = f"box{number}"
            hostile.agent.wrong, hostile.agent.all_wrong = {}, None
            hostile.run(pod_id)
            hostile.configure(deadline_s)
            misbehave(hostile.agent)
            calls = program.round(pod_id)
            wrong.update({(name, call.name): call for call in calls if not call.is_right})
            assert any(call.error for call in calls), f"nobody has noticed: {name}"
        problems = program.end()
    assert not wrong
    assert not problems
    assert hostile.outside() == before


@pytest.mark.parametrize("kind", ["asyncio", "blocking"])
@pytest.mark.parametrize(
    "misbehaviours", [ANSWERING, STREAMS], ids=["every-answer-is-wrong", "one-answer-is-wrong"]
)
def test_each_call_ends_with_an_answer_or_an_error_of_ours(hostile, kind, misbehaviours):
    check(hostile, kind, misbehaviours)


def test_a_stream_of_which_each_byte_is_a_message_ends_with_who_reads_it(hostile):
    check(hostile, "asyncio", {"small-output-without-end": only(ReadOutput=writes_on(b"x"))})


def test_each_call_on_a_guest_that_is_silent_ends_by_its_deadline(hostile):
    check(hostile, "asyncio", {"silent": everything(lambda _: silent)}, deadline_s=0.5)


def test_each_call_ends_when_the_connection_breaks_at_every_call(hostile):
    check(hostile, "asyncio", {"drops": everything(drops)})
