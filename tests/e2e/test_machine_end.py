"""Every verb tells how the machine ended, also when its connection only breaks; nobody sees a
transport's error.
"""

from __future__ import annotations

import asyncio
import os
import re
import select
import signal
import subprocess

import pytest

from tests.e2e.conftest import VC
from vc_core.spec import AgentError, ContainerSpec, ProcessSpec, Rootfs, StateError, VcError

_REASON = re.compile(rb"the machine ended: QEMU was (killed|ended)")


@pytest.fixture
def talk(host):
    """Types a command of which nobody waits for the end; returns when it has written its first
    bytes.
    """
    started = []

    def begin(*words, is_silent=False):
        found = subprocess.Popen(
            [*VC, *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=host.environ(),
        )
        started.append(found)
        if not is_silent:
            assert select.select([found.stdout], [], [], 120)[0], words
            assert os.read(found.stdout.fileno(), 1)
        return found

    yield begin
    for one in started:
        one.kill()
        one.communicate()


def test_each_command_tells_how_the_machine_ended(host, busybox, tmp_path, talk):
    script = "echo up; while :; do sleep 1; done"
    host.vc("run", "-d", "--name", "b", "--rootfs", str(busybox), "--", "sh", "-c", script)
    # More than fits between the guest and a reader who does not read: the copy is under way until
    # the machine ends.
    host.vc("exec", "b", "--", "dd", "if=/dev/zero", "of=/big", "bs=1M", "count=32")
    under_way = {
        "exec": talk("exec", "b", "--", "sh", "-c", "echo up; sleep 1000"),
        "exec -i": talk("exec", "b", "--", "sh", "-c", "echo up; cat"),
        "logs": talk("logs", "-f", "b"),
        "cp": talk("cp", "b:/big", "-"),
    }
    (machine,) = host.machines()
    os.kill(machine, signal.SIGKILL)
    for words, one in under_way.items():
        told = one.communicate(timeout=120)[1]
        assert _REASON.search(told), (words, told)
        assert one.returncode == (0 if words == "logs" else 125), (words, told)
        assert b"vm_close_channel" not in told, words
    (tmp_path / "f").write_text("f")
    for words in (
        ("exec", "b", "--", "true"),
        ("attach", "b"),
        ("wait", "b"),
        ("cp", str(tmp_path / "f"), "b:/f"),
        ("cp", "b:/bin/busybox", str(tmp_path)),
        ("container", "kill", "b"),
    ):
        done = host.vc(*words, check=None)
        assert done.returncode == 125, (words, done.stderr)
        assert _REASON.search(done.stderr), (words, done.stderr)
    host.vc("pod", "delete", "--force", "b")


async def test_each_call_tells_how_the_machine_ended(host, busybox):
    async with host.runtime() as runtime, runtime.pod("p") as pod:
        first = ContainerSpec(
            id="c",
            rootfs=Rootfs(path=busybox),
            process=ProcessSpec(args=("sleep", "300"), env=("PATH=/bin",)),
        )
        container = await pod.create_container(first)
        process = await container.start()
        other, third = await container.exec(first.process), await container.exec(first.process)
        reading = await container.exec(ProcessSpec(args=("cat", "/dev/zero")))
        await other.streams()
        output = reading.output()
        await anext(output)
        calls = {
            "wait": process.wait(),
            "container.wait": container.wait(),
            "communicate": other.communicate(b"x"),
            "stop": container.stop(grace_s=300),
        }
        asked = {name: asyncio.create_task(call) for name, call in calls.items()}
        (machine,) = host.machines()
        os.kill(machine, signal.SIGKILL)
        await asyncio.wait(asked.values())
        errors = {
            name: task.exception() for name, task in asked.items() if task.exception() is not None
        }
        for name in ("wait", "communicate"):
            assert isinstance(errors[name], AgentError), name
        with pytest.raises(AgentError, match="the machine ended: QEMU was killed"):
            async for _ in output:
                pass
        after = {
            "exec": container.exec(first.process),
            "kill": third.kill(9),
            "streams": third.streams(),
            "process.wait": third.wait(),
            "processes": container.processes(),
            "write": container.files.write("/f", b"f"),
            "read": container.files.read("/bin/busybox"),
        }
        for name, call in after.items():
            with pytest.raises(VcError) as caught:
                await call
            errors[name] = caught.value
            assert isinstance(caught.value, AgentError | StateError), name
        for name, error in errors.items():
            assert _REASON.search(str(error).encode()), (name, error)
