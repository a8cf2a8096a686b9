"""Single invalid answers, each for the commands that use it: one clear error line."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from collections.abc import Iterator

import grpc
import pytest
from vc_agent_grpc._generated import agent_pb2 as pb
from vc_agent_grpc.client import NEWEST_PROTOCOL

from tests.hostile.agent import until_given_up
from tests.hostile.conftest import SITE

_ESCAPES = "\x1b]0;owned\x07\x1b[2J\x9b2J\r\x08\u202e[/x]"
_HUGE = (1 << 64) - 1


def listed(**values: object) -> pb.ListContainersReply:
    return pb.ListContainersReply(containers=[pb.ContainerInfo(container_id="box", **values)])


def processes(**values: object) -> pb.ListProcessesReply:
    return pb.ListProcessesReply(processes=[pb.ProcessInfo(**values)])


@pytest.mark.parametrize(
    ("method", "reply", "words", "expected"),
    [
        pytest.param(
            "Wait",
            pb.WaitReply(exit_code=256),
            ["exec", "box", "x"],
            "exit code 256",
            id="code-256",
        ),
        pytest.param(
            "Wait",
            pb.WaitReply(exit_code=-1),
            ["exec", "box", "x"],
            "exit code -1",
            id="code-negative",
        ),
        pytest.param(
            "Wait",
            pb.WaitReply(exit_code=0, signal=9),
            ["attach", "box"],
            "signal 9",
            id="code-not-signal",
        ),
        pytest.param(
            "Wait",
            pb.WaitReply(exit_code=200, signal=72),
            ["wait", "box"],
            "signal 72",
            id="signal-72",
        ),
        pytest.param(
            "ListContainers",
            listed(health=77),
            ["pod", "status", "box"],
            "health is number 77",
            id="health-77",
        ),
        pytest.param(
            "ListContainers",
            listed(health=77),
            ["inspect", "box"],
            "health is number 77",
            id="inspect",
        ),
        pytest.param(
            "ListContainers",
            listed(ended=pb.WaitReply(exit_code=999)),
            ["pod", "status", "box"],
            "code 999",
            id="ended",
        ),
        pytest.param(
            "ListContainers",
            pb.ListContainersReply(containers=[pb.ContainerInfo()] * 40_000),
            ["pod", "status", "box"],
            "40000 containers",
            id="many-containers",
        ),
        pytest.param(
            "ListContainers",
            pb.ListContainersReply(containers=[pb.ContainerInfo(container_id="x" * 500_000)]),
            ["container", "status", "box"],
            "a name of 500000 characters",
            id="long-name",
        ),
        pytest.param(
            "ListProcesses",
            pb.ListProcessesReply(processes=[pb.ProcessInfo()] * 40_000),
            ["container", "ps", "box"],
            "40000 processes",
            id="many-processes",
        ),
        pytest.param(
            "ListProcesses",
            processes(command=[""] * 200_000),
            ["container", "ps", "box"],
            "words",
            id="many-words",
        ),
        pytest.param(
            "ListProcesses",
            processes(cpu_ns=_HUGE),
            ["container", "ps", "box"],
            "the number",
            id="cpu",
        ),
        pytest.param(
            "Negotiate",
            pb.NegotiateReply(protocol=NEWEST_PROTOCOL + 1),
            ["inspect", "box"],
            "protocol",
            id="newer-protocol",
        ),
        pytest.param(
            "Negotiate", pb.NegotiateReply(), ["exec", "box", "x"], "protocol 0", id="no-protocol"
        ),
        pytest.param(
            "Negotiate",
            pb.NegotiateReply(protocol=NEWEST_PROTOCOL, features=["f"] * 1000),
            ["exec", "box", "x"],
            "1000 features",
            id="many-features",
        ),
    ],
)
def test_an_answer_that_cannot_be_is_one_clear_error(hostile, method, reply, words, expected):
    hostile.run()
    hostile.agent.wrong[method] = lambda *_: reply.SerializeToString()
    done = hostile.vc(*words)
    is_view = words[0] in ("inspect", "pod")  # which show what is known all the same
    assert (done.code, done.problems()) == (0 if is_view else 125, [])
    assert expected in (done.stdout.decode() if words[0] == "inspect" else done.stderr[-1])
    assert hostile.vc("pod", "delete", "box").code == 0


def test_a_list_of_all_pods_tells_of_the_one_that_answers_what_cannot_be(hostile):
    """And shows the others."""
    hostile.run()
    hostile.agent.wrong["ListContainers"] = lambda *_: listed(health=77).SerializeToString()
    done = hostile.vc("ps")
    assert (done.code, done.problems(), len(done.stderr)) == (0, [], 1)
    assert done.stderr[0].startswith("vc: warning: pod box")
    del hostile.agent.wrong["ListContainers"]
    hostile.agent.wrong["ContainerStats"] = lambda *_: pb.ContainerStatsReply(
        memory_bytes=_HUGE
    ).SerializeToString()
    used = hostile.vc("stats", "--interval", "0.1", "--no-stream", "--json")
    assert (used.code, used.problems()) == (0, [])
    assert f"the number {_HUGE}" in json.loads(used.stdout)[0]["unanswered"]
    table = hostile.vc("stats", "--interval", "0.1", "--no-stream")
    assert (table.code, table.problems(), b"no answer" in table.stdout) == (0, [], True)


def test_names_of_processes_are_text_in_a_table(hostile):
    """Neither what a terminal obeys nor what a table's library takes for markup; JSON escapes it in
    its own way.
    """
    hostile.run()
    reply = processes(pid=1, state=_ESCAPES, command=[_ESCAPES, "line\nbreak"])
    hostile.agent.wrong["ListProcesses"] = lambda *_: reply.SerializeToString()
    table = hostile.vc("container", "ps", "box").stdout.decode()
    assert len(table.splitlines()) == 2
    assert all(line.isprintable() for line in table.splitlines())
    assert r"\x1b]0;owned\x07\x1b[2J\x9b2J\r\x08\u202e[/x]" in table
    document = hostile.vc("container", "ps", "--json", "box").stdout.decode()
    assert all(line.isprintable() for line in document.splitlines())
    assert json.loads(document)[0]["command"] == [_ESCAPES, "line\nbreak"]


def chunks(*found: pb.OutputChunk) -> object:
    return lambda *_: iter([one.SerializeToString() for one in found])


def endless(_request: bytes, _context: grpc.ServicerContext) -> Iterator[bytes]:
    yield b""
    chunk = pb.OutputChunk(stdout=b"x" * (512 << 10)).SerializeToString()
    while True:
        yield chunk


def small_without_end(_request: bytes, _context: grpc.ServicerContext) -> Iterator[bytes]:
    yield b""
    while True:
        yield pb.OutputChunk(stdout=b"x").SerializeToString()


def empty_without_end(_request: bytes, _context: grpc.ServicerContext) -> Iterator[bytes]:
    while True:
        yield b""


def breaks(_request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
    yield b""
    yield pb.OutputChunk(stdout=b"half").SerializeToString()
    context.abort(grpc.StatusCode.ABORTED, _ESCAPES)


def never_begins(_request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
    yield from until_given_up(context)


@pytest.mark.parametrize(
    ("stream", "code"),
    [
        pytest.param(chunks(), 125, id="no-chunk"),
        pytest.param(
            chunks(pb.OutputChunk(stdout=b"too early")), 125, id="output-before-the-begin"
        ),
        pytest.param(lambda *_: iter([b"", b"\xff\xff\xff"]), 125, id="no-message"),
        pytest.param(lambda *_: iter([b"", b"\x0a\x05hello\x1a\x04more"]), 0, id="more-fields"),
        pytest.param(breaks, 125, id="breaks"),
        pytest.param(never_begins, 125, id="never-begins"),
        pytest.param(endless, 125, id="without-end"),
        pytest.param(small_without_end, 125, id="small-without-end"),
        pytest.param(empty_without_end, 125, id="empty-without-end"),
    ],
)
def test_a_stream_that_is_wrong_ends_by_its_deadline(hostile, stream, code):
    """The guest does not end the process that is killed either."""
    hostile.run()
    hostile.agent.wrong["ReadOutput"] = stream
    done = hostile.vc("exec", "--timeout", "0.3", "box", "x")
    assert (done.code, done.problems()) == (code, [])
    listed_by_itself = (
        hostile.vc("container", "ps", "--args", "aux", "box") if stream is endless else done
    )
    assert listed_by_itself.problems() == []


def test_a_process_that_never_ends_is_given_up(hostile):
    hostile.run()
    hostile.agent.wrong["Wait"] = lambda _request, context: until_given_up(context)
    done = hostile.vc("exec", "--timeout", "0.3", "box", "x")
    assert (done.code, done.problems()) == (125, [])
    assert "'vc pod delete --force box' ends the machine" in done.stderr[-1]
    for words in (
        ["container", "stop", "box", "--grace", "0.1"],
        ["pod", "stop", "box"],
        ["pod", "delete", "box"],
    ):
        assert hostile.vc(*words).problems() == []
    assert hostile.vc("pod", "ls").stdout.count(b"\n") == 1


def test_the_console_of_a_guest_is_escaped_on_a_terminal_only(hostile):
    """As dmesg does it."""
    hostile.run()
    (hostile.folder / "console").write_bytes(b"\x1b[2Jtext\r\n")
    assert hostile.vc("pod", "console", "box").stdout == b"\x1b[2Jtext\r\n"
    main, ours = pty.openpty()
    environ = {**os.environ, "PYTHONPATH": str(SITE), "VC_CONFIG": str(hostile.folder / "vc.toml")}
    subprocess.run(
        [sys.executable, "-m", "vc_core", "pod", "console", "box"],
        env=environ,
        stdout=ours,
        check=True,
    )
    assert (
        os.read(main, 4096) == b"\\x1b[2Jtext\r\n"
    )  # a terminal makes two characters of an end of line
    os.close(main)
    os.close(ours)
