"""Rules of programs that stand in on the host for a process of a guest."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
import tempfile
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from vc_core.spec import Capability, StandIn, Stdio
from vc_core.testing.agent_suite.subject import ECHOES, LIVES, AgentSubject, InGuest
from vc_core.testing.rules import rule, time_limit

_NO_ROLE = StandIn()
_REPORT = 3
_CATCHES = ("sh", "-c", "trap 'exit 9' USR1; echo ready; while true; do sleep 1; done")
# Gives the program its report as descriptor 3; the pid stays.
_WITH_REPORT = f"""import os, sys
report = int(sys.argv[1])
if report != {_REPORT}:
    os.dup2(report, {_REPORT})
    os.close(report)
os.execv(sys.argv[2], sys.argv[2:])"""


@asynccontextmanager
async def _stand_in(guest: InGuest, name: str, role: StandIn = _NO_ROLE) -> AsyncIterator[Process]:
    """Provides the program that stands in for a container's first process, connected."""
    channel = await guest.agent.vm_open_channel(pod=guest.pod, name="vc.agent.2")
    words = await guest.agent.agent_stand_in(
        pod=guest.pod,
        channel=channel,
        container_id=name,
        token=name,
        role=role,
    )
    reading, writing = os.pipe()
    try:
        started = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            _WITH_REPORT,
            str(writing),
            *words,
            stdin=PIPE,
            stdout=PIPE,
            pass_fds=(
                writing,
                *(one for one in (role.listener, role.starter) if one is not None),
            ),
        )
    finally:
        os.close(writing)
    reader = asyncio.StreamReader()
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(reading, "rb")
    )
    try:
        async with time_limit():
            report = await reader.read()
        assert report == b"ok", f"it reports {report!r}"
        yield started
    finally:
        transport.close()
        if started.returncode is None:
            started.kill()
        await started.wait()


async def _code(started: Process) -> int:
    async with time_limit():
        return await started.wait()


class StandInRules:
    """Rules of programs that stand in on the host for a process of a guest."""

    @rule("agent_stand_in", "connects its descriptors 0 to 2 to the streams of the process")
    async def test_a_stand_in_carries_the_streams(self, subject: AgentSubject) -> None:
        data = bytes(range(256)) * 1024
        async with subject.guest() as guest:
            await guest.needs(Capability.STAND_IN)
            await guest.run("c", ECHOES, Stdio.PIPES)
            async with _stand_in(guest, "c") as started, time_limit():
                found, _ = await started.communicate(data)
        assert found == data, f"{len(found)} bytes of {len(data)} came back, or others"

    @rule("agent_stand_in", "It forwards the signals that it gets, and ends with the exit code")
    async def test_a_stand_in_forwards_signals(self, subject: AgentSubject) -> None:
        async with subject.guest() as guest:
            await guest.needs(Capability.STAND_IN)
            await guest.run("c", _CATCHES, Stdio.PIPES)
            async with _stand_in(guest, "c") as started:
                assert started.stdout is not None
                async with time_limit():
                    await started.stdout.readline()
                started.send_signal(signal.SIGUSR1)
                code = await _code(started)
        assert code == 9, f"it ended with {code}"

    @rule("agent_stand_in", "It ends with 137 when the machine ends first.")
    async def test_a_stand_in_ends_with_the_machine(self, subject: AgentSubject) -> None:
        async with subject.guest() as guest:
            await guest.needs(Capability.STAND_IN)
            await guest.run("c", LIVES, Stdio.PIPES)
            async with _stand_in(guest, "c") as started:
                await guest.agent.vm_destroy(pod=guest.pod)
                code = await _code(started)
        assert code == 128 + signal.SIGKILL, f"it ended with {code}"

    @rule("agent_stand_in", "Killing the program kills the process.")
    async def test_killing_a_stand_in_kills_the_process(self, subject: AgentSubject) -> None:
        async with subject.guest() as guest:
            await guest.needs(Capability.STAND_IN)
            await guest.run("c", LIVES, Stdio.PIPES)
            async with _stand_in(guest, "c") as started:
                started.kill()
                await _code(started)
                async with time_limit():
                    status = await guest.agent.agent_wait(
                        pod=guest.pod, container_id="c", token="c"
                    )
        assert status.signal == signal.SIGKILL, f"it ended by {status}"

    @rule("agent_stand_in", "one that is refused there is reset.")
    async def test_a_connection_that_the_guest_refuses_is_reset(
        self, subject: AgentSubject
    ) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            async with subject.guest() as guest:
                await guest.needs(Capability.STAND_IN)
                await guest.run("c", LIVES, Stdio.PIPES)
                channel = await guest.agent.vm_open_channel(pod=guest.pod, name="vc.agent.3")
                role = StandIn(listener=listener.fileno(), dial_channel=channel)
                async with _stand_in(guest, "c", role), time_limit():
                    # Nobody in the guest listens on this port.
                    reader, writer = await asyncio.open_connection(*listener.getsockname())
                    try:
                        with contextlib.suppress(ConnectionResetError):
                            found = await reader.read(1)
                            raise AssertionError(f"it was not reset, but gave {found!r}")
                    finally:
                        writer.close()

    @rule("agent_stand_in", 'it answers "ok" when that runs, or else the reason why not')
    async def test_a_stand_in_starts_the_container_once_when_asked(
        self, subject: AgentSubject
    ) -> None:
        with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as listener:
            path = f"{folder}/start"
            listener.bind(path)
            listener.listen()
            async with subject.guest() as guest:
                await guest.needs(Capability.STAND_IN, Capability.STARTER)
                await guest.create("c", ("sh", "-c", "echo runs; sleep 1000"), Stdio.PIPES)
                role = StandIn(starter=listener.fileno())
                async with _stand_in(guest, "c", role) as started, time_limit():
                    reader, writer = await asyncio.open_unix_connection(path)
                    with contextlib.closing(writer):
                        answer = await reader.read()
                    assert answer == b"ok", f"it answers {answer!r}"
                    assert started.stdout is not None
                    assert await started.stdout.readline() == b"runs\n"

    @rule("agent_stand_in", "With `role.ends_machine` the machine ends after the program")
    async def test_a_machine_ends_after_the_stand_in(self, subject: AgentSubject) -> None:
        async with subject.guest() as guest:
            await guest.needs(Capability.STAND_IN)
            await guest.run("c", LIVES, Stdio.PIPES)
            async with _stand_in(guest, "c", StandIn(ends_machine=True)) as started:
                started.kill()
                await _code(started)
                async with time_limit():
                    await guest.agent.vm_wait(pod=guest.pod)
