"""The API without asyncio: the same calls, and what becomes of one that is interrupted."""

from __future__ import annotations

import inspect
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import vc_core
from vc_core import blocking
from vc_core.engine.api.container import Container
from vc_core.engine.api.files import Files
from vc_core.engine.api.pod import Pod
from vc_core.engine.api.process import End, Process
from vc_core.engine.api.runtime import Runtime
from vc_core.images import Images
from vc_core.spec import ContainerSpec, NotFound, ProcessSpec, Rootfs, Stdio
from vc_core.testing.pods import mock_runtime

PAIRS = [
    (Runtime, blocking.Runtime),
    (Pod, blocking.Pod),
    (Container, blocking.Container),
    (Process, blocking.Process),
    (Images, blocking.Images),
    (Files, blocking.Files),
]
# What only the engine's own parts use, and what a program without asyncio has no use for.
INTERNAL = {
    Runtime: {"hooks", "template_request"},
    Process: {"streams", "end_limit_s", "does_not_end", "stand_in"},
}


def public(kind: type) -> dict[str, object]:
    return {name: value for name, value in vars(kind).items() if not name.startswith("_")}


@pytest.mark.parametrize(("engine", "ours"), PAIRS, ids=[ours.__name__ for _, ours in PAIRS])
def test_each_call_is_there_with_the_same_parameters(engine, ours):
    calls = {
        name: one for name, one in public(engine).items() if name not in INTERNAL.get(engine, ())
    }
    assert set(public(ours)) - {"id"} == set(calls)
    for name, call in calls.items():
        if isinstance(call, property) or name == "unarchive":  # takes what is given without asyncio
            continue
        parameters = [
            list(inspect.signature(getattr(kind, name)).parameters.values())
            for kind in (engine, ours)
        ]
        assert parameters[0] == parameters[1], name


def test_the_package_says_where_it_is():
    assert "vc_core.blocking" in (vc_core.__doc__ or "")


@pytest.fixture
def runtime(world, config, tmp_path):
    with blocking.Runtime(mock_runtime(world, config), blocking.Loop()) as opened:
        yield opened


def test_a_pod_is_there_for_the_length_of_a_block(runtime, world):
    with runtime.pod("p") as pod:
        assert pod.run("exit", "3").exit_code == 3
        assert [found.id for found in runtime.list().pods] == ["p"]
        made = pod.create_container(
            ContainerSpec(
                id="c",
                rootfs=Rootfs(path=Path("/")),
                process=ProcessSpec(args=("cat",)),
                stdio=Stdio.PIPES,
            )
        )
        process = made.start()
        process.write(b"through")
        process.close_stdin()
        assert list(process.stdout) == [b"through"]
        assert list(process.stderr) == []
        assert process.wait().code == 0
        assert isinstance(pod.container("c"), blocking.Container)
    assert runtime.list().pods == ()
    assert world.residue() == []


def test_errors_are_the_same(runtime):
    with pytest.raises(NotFound):
        runtime.get("none")


def test_a_block_that_fails_leaves_no_pod(runtime, world):
    with pytest.raises(ZeroDivisionError), runtime.pod("p"):
        raise ZeroDivisionError
    assert runtime.list().pods == ()


def test_an_interrupted_call_is_cleaned_up_before_the_interruption_goes_on(runtime, world):
    world.is_booting_for_ever = True
    threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt), runtime.pod("p"):
        pass
    assert world.residue() == []
    assert runtime.list().pods == ()


def test_several_threads_share_a_runtime(runtime):
    found: list[int] = []

    def work(number: int) -> None:
        with runtime.pod(f"p{number}") as pod:
            found.append(pod.run("exit", str(number)).exit_code)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == [0, 1, 2, 3]


def test_its_thread_ends_with_it(world, config):
    before = set(threading.enumerate())  # with those of other tests, which may end meanwhile
    opened = blocking.Runtime(mock_runtime(world, config), blocking.Loop())
    opened.close()
    opened.close()
    assert set(threading.enumerate()) - before == set()


def test_what_takes_too_long_is_killed_and_told(runtime):
    with runtime.pod("p") as pod:
        result = pod.run("endless", timeout_s=0.2)
        assert (result.end, result.signal) == (End.TIMED_OUT, signal.SIGKILL)
        assert pod.run("exit", "0", timeout_s=30).end is End.EXITED


def test_a_pod_whose_block_is_never_left_ends_with_the_program(tmp_path):
    program = """
import atexit, sys
from pathlib import Path
from vc_core import blocking
from vc_core.testing.mocks import World
from vc_core.testing.pods import mock_config, mock_runtime

folder = Path(sys.argv[1])
world = World(folder)
atexit.register(lambda: print(world.residue()))
runtime = blocking.Runtime(mock_runtime(world, mock_config(folder)), blocking.Loop())
pod = runtime.pod("p").__enter__()
print(pod.run("exit", "3").exit_code, [one.id for one in runtime.list().pods])
"""
    done = subprocess.run(
        [sys.executable, "-c", program, tmp_path], capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.stderr) == ("3 ['p']\n[]\n", "")


def test_a_child_of_fork_is_told_at_once_and_does_nothing_to_its_parents_pods(tmp_path):
    program = """
import os, sys
from pathlib import Path
from vc_core import blocking
from vc_core.spec import InvalidRequest
from vc_core.testing.mocks import World
from vc_core.testing.pods import mock_config, mock_runtime

folder = Path(sys.argv[1])
world = World(folder)

def opened():
    return blocking.Runtime(mock_runtime(world, mock_config(folder)), blocking.Loop())

left = opened()
left.pod("left").__enter__()
with opened() as runtime, runtime.pod("p") as pod:
    child = os.fork()
    if child == 0:
        for call in (pod.status, runtime.list, lambda: pod.run("exit", "0")):
            try:
                call()
            except InvalidRequest as error:
                print(error)
        with opened() as own:
            print("own", [one.id for one in own.list().pods])
    else:
        os.waitpid(child, 0)
if child == 0:
    print("child", sorted(world.machines), flush=True)
    sys.exit()
print("parent", sorted(world.machines), flush=True)
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program, tmp_path],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    told = (
        "this runtime was opened before fork(), in the parent process; "
        "open another one in this process"
    )
    expected = [told] * 3 + ["own ['left', 'p']", "child ['left', 'p']", "parent ['left']"]
    assert (done.stdout.splitlines(), done.stderr) == (expected, "")
