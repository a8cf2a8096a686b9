"""What test_groups.py runs in a guest, which has control groups of version 2 only.

Prints what it finds as JSON. It needs all capabilities: `unified_groups.py SCENE [STAND_IN]`.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from concurrent import futures
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING

from vc_runtime import cgroups

if TYPE_CHECKING:
    from collections.abc import Iterator

    from google.protobuf.message import Message

TOP = Path("/sys/fs/cgroup")
PATH = "kube/pod/c"
GROUP = TOP / PATH
MACHINE_BYTES, THREADS = 64 << 20, 40
LIVES = ("sleep", "1000")


def prepare() -> None:
    """Makes the groups writable, and the one at the top empty, so that it may have limits below."""
    subprocess.run(("mount", "-o", "remount,rw", TOP), check=True)
    (TOP / "init").mkdir()
    for pid in (TOP / "cgroup.procs").read_text().split():
        (TOP / "init/cgroup.procs").write_text(pid)


@contextmanager
def machine() -> Iterator[subprocess.Popen[bytes]]:
    """A process in a bounded group, as QEMU in its jail."""
    folder = TOP / "virtcontainers/m"
    folder.mkdir(parents=True)
    for above in (TOP, folder.parent):
        (above / "cgroup.subtree_control").write_text("+memory +pids")
    (folder / "memory.max").write_text(str(MACHINE_BYTES))
    (folder / "pids.max").write_text(str(THREADS))
    with subprocess.Popen(LIVES) as process:
        (folder / "cgroup.procs").write_text(str(process.pid))
        yield process
        process.kill()


@contextmanager
def joined() -> Iterator[tuple[int, tuple[str, ...]]]:
    """A process that has joined the group, as `create` does; its pid, and what it has joined."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.write(writing, json.dumps(cgroups.join(PATH)).encode())
            os.execvp(LIVES[0], LIVES)
        finally:
            os._exit(1)
    os.close(writing)
    with open(reading, "rb") as told:  # noqa: PTH123 (a descriptor)
        groups = tuple(json.loads(told.read()))
    yield pid, groups
    os.kill(pid, 9)
    os.waitpid(pid, 0)


def place(pid: int) -> str:
    """Returns the group of a process."""
    return Path(f"/proc/{pid}/cgroup").read_text().strip().removeprefix("0::/")


def read(name: str) -> str:
    """Returns the contents of a file of the group; empty when there is none."""
    file = GROUP / name
    return file.read_text().strip() if file.exists() else ""


def bounded() -> dict[str, object]:
    """A stand-in and its machine join a group, and end."""
    with machine() as running, joined() as (pid, groups):
        cgroups.adopt(groups, running.pid)
        found: dict[str, object] = {
            "places": [place(pid), place(running.pid)],
            "memory": read("memory.max"),
            "threads": read("pids.max"),
            "memory_group": cgroups.memory_of(groups),
            "processes": cgroups.processes(PATH) == {pid, running.pid},
            "busy": cgroups.remove(PATH),
        }
    return found | {"left": cgroups.remove(PATH), "exists": GROUP.exists()}


def internal() -> dict[str, object]:
    """A group above has a process, and so cannot pass limits on: the machine keeps its bounds."""
    (TOP / "kube").mkdir()
    with subprocess.Popen(LIVES) as stranger, machine() as running:
        (TOP / "kube/cgroup.procs").write_text(str(stranger.pid))
        with joined() as (pid, groups):
            cgroups.adopt(groups, running.pid)
            found = {
                "places": [place(pid), place(running.pid)],
                "memory_group": cgroups.memory_of(groups),
            }
        stranger.kill()
    return found | {"left": cgroups.remove(PATH)}


def oom(stand_in: str) -> dict[str, object]:
    """A stand-in is told that its process was short of memory; a machine is in the same group."""
    with machine() as running:
        with joined() as (_, groups):
            cgroups.adopt(groups, running.pid)
        before = read("memory.max"), read("memory.swap.max")
        socket, report = Path("/tmp/agent"), Path("/tmp/report")
        with agent(socket):
            script = 'echo $$ >"$0/cgroup.procs" && exec "$@" 3>/tmp/report'
            words = (stand_in, socket, "c", "t", "process", "--memory-group", GROUP)
            with subprocess.Popen(("sh", "-c", script, GROUP, *words)) as process:
                code = process.wait(60)
        for _ in range(100):  # the child that sets back is nobody's to wait for
            after = read("memory.max"), read("memory.swap.max")
            if after == before:
                break
            Event().wait(0.1)
        return {
            "report": report.read_text(),
            "code": code,
            "is_set_back": after == before,
            "events": dict(line.split() for line in read("memory.events").splitlines()),
            "is_machine_alive": running.poll() is None,
        }


@contextmanager
def agent(socket: Path) -> Iterator[None]:
    """Answers a stand-in as the guest's agent does whose process has just been killed."""
    import grpc
    from vc_agent_grpc._generated import agent_pb2 as messages
    from vc_agent_grpc._generated import agent_pb2_grpc as services

    over = Event()

    class Agent(services.AgentServicer):
        def Negotiate(self, request: Message, context: object) -> Message:  # noqa: N802 (of the protocol)
            return messages.NegotiateReply(protocol=request.newest)

        def Hold(self, request: Message, context: object) -> Iterator[Message]:  # noqa: N802 (of the protocol)
            yield messages.Empty()
            over.wait()

        def ReadOutput(self, request: Message, context: object) -> Iterator[Message]:  # noqa: N802 (of the protocol)
            yield messages.OutputChunk()

        def WriteInput(self, chunks: Iterator[Message], context: object) -> Message:  # noqa: N802 (of the protocol)
            return messages.Empty()

        def Wait(self, request: Message, context: object) -> Message:  # noqa: N802 (of the protocol)
            return messages.WaitReply(exit_code=137, signal=9, out_of_memory=True)

    server = grpc.server(futures.ThreadPoolExecutor(8))
    services.add_AgentServicer_to_server(Agent(), server)
    server.add_insecure_port(f"unix:{socket}")
    server.start()
    yield
    over.set()
    server.stop(None).wait()


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    prepare()
    scene, *words = sys.argv[1:]
    print(json.dumps({"bounded": bounded, "internal": internal, "oom": oom}[scene](*words)))
