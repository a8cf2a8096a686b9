"""What the generic stand-in does when a connection breaks, and with signals and children."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import types

import pytest
from vc_runtime import relay

import vc_core
from vc_core.spec import AgentError, Busy, ExitStatus, NotFound, StateError

_ENDED = StateError("process t", "signal it", "ended", ["running"])
_PAUSED = StateError("pod p", "signal it", "paused", ["running"])


class _Process:
    """Its own runtime, pod, container and streams, too; its connection breaks at once."""

    def __init__(self, waited=None, state="running", errors=()):
        self.waited = waited
        self.state = state
        self.errors = list(errors)
        self.given = []

    async def get(self, pod_id):
        return self

    def container(self, container_id):
        return self

    async def process(self, may_wait, token):
        return self

    async def streams(self):
        return self

    async def chunks(self):
        yield "stdin", b""
        raise AgentError("broken")

    async def wait(self):
        if self.waited == "silent":
            await asyncio.Event().wait()
        if self.waited is None:
            raise AgentError("broken, too")
        return ExitStatus(code=self.waited)

    async def status(self, ask_guest):
        if self.state == "deleted":
            raise NotFound("no pod p")
        return types.SimpleNamespace(state=self.state)

    async def kill(self, number):
        if self.errors:
            raise self.errors.pop(0)
        self.given.append(number)

    async def resize(self, rows, columns):
        await self.kill((rows, columns))


@pytest.fixture
def told(monkeypatch):
    """What is written to stderr."""
    lines = []
    monkeypatch.setattr(relay, "write_all", lambda number, data: lines.append((number, data)))
    return lines


@pytest.fixture
def broken(monkeypatch):
    """Connects to a process whose connection breaks; returns the exit code."""

    class _Quiet:
        def __init__(self, process, children):
            pass

        async def forward(self):
            pass

    async def feed(process):
        pass

    monkeypatch.setattr(relay, "_Signals", _Quiet)
    monkeypatch.setattr(relay, "_feed", feed)
    monkeypatch.setattr(relay, "_EXPLAINED_S", 0.2)

    async def carry(process):
        opened = types.SimpleNamespace(open=lambda: process)
        monkeypatch.setattr(vc_core, "Runtime", opened)
        return await relay.carry("p", "c", "t", set(), lambda: None)

    return carry


@pytest.mark.parametrize("waited", [None, "silent"])
async def test_a_broken_connection_is_no_end_of_the_process(broken, told, waited):
    assert await broken(_Process(waited)) is None
    assert told == [(2, b"vc-runtime: the connection to the process has ended: broken\n")]


@pytest.mark.parametrize("state", ["stopped", "deleted"])
async def test_an_end_of_the_machine_is_told(broken, told, state):
    assert await broken(_Process(None, state)) is None
    assert told == [(2, b"vc-runtime: the machine has ended: broken\n")]


async def test_an_exit_status_is_kept_when_the_output_breaks(broken, told):
    assert await broken(_Process(7)) == 7
    assert len(told) == 1


@pytest.mark.parametrize(
    ("errors", "given", "line"),
    [
        ([Busy("held"), Busy("held")], [(24, 80)], b""),
        ([_ENDED], [], b""),
        ([NotFound("gone")], [], b""),
        ([_PAUSED], [], b"did not reach the process: pod p is paused"),
        ([AgentError("two\nlines")], [], b"did not reach the process: two lines\n"),
    ],
)
async def test_sizes_and_signals_are_not_lost_silently(monkeypatch, told, errors, given, line):
    monkeypatch.setattr(relay.termios, "tcgetwinsize", lambda number: (24, 80))
    process = _Process(errors=errors)
    await relay._Signals(process, set())._resize()
    assert process.given == given
    assert line in b"".join(data for _, data in told)
    assert len(told) == bool(line)


async def test_a_signal_that_the_agent_refuses_is_told(monkeypatch):
    signals = relay._Signals(_Process(errors=[AgentError("no")]), set())
    monkeypatch.setattr(signals, "_receive", lambda loop: None)
    lines = asyncio.Queue()
    loop = asyncio.get_running_loop()
    put = lines.put_nowait
    monkeypatch.setattr(
        relay, "write_all", lambda number, data: loop.call_soon_threadsafe(put, (number, data))
    )
    signals._queue.put_nowait(10)
    forwarding = asyncio.create_task(signals.forward())
    line = await asyncio.wait_for(lines.get(), 10)
    forwarding.cancel()
    assert line == (2, b"vc-runtime: signal 10 did not reach the process: no\n")


def test_a_child_that_ended_before_is_reaped(monkeypatch):
    child = subprocess.Popen([sys.executable, "-c", ""])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # ended, and not reaped

    def no_signal(signals):
        raise RuntimeError("the loop has ended")

    monkeypatch.setattr(relay.signal, "sigwaitinfo", no_signal)
    relay._Signals(_Process(), {child.pid})._receive(None)
    with pytest.raises(ChildProcessError):
        os.waitpid(child.pid, os.WNOHANG)
    child.returncode = 0
