"""Programs that fork while a runtime is open, and programs that end without leaving a block: with
real machines.
"""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = pytest.mark.only("qemu")

_FORK = """
import multiprocessing, os, sys
from vc_core.blocking import Runtime
from vc_core.spec import InvalidRequest

def said(pod, word):
    return pod.exec("echo", word).communicate(timeout_s=60).stdout.decode().strip()

def child(runtime, pod, name):
    try:
        pod.status()
    except InvalidRequest as error:
        print(name, str(error).partition(",")[0], flush=True)
    with Runtime.open() as own:
        with own.pod(name) as mine:
            mine.launch("sleep", "1000", rootfs=sys.argv[1])
            print(name, said(mine, "own"), flush=True)
            print(name, said(own.get(pod.id), "parents"), flush=True)
            if name == "one":
                fork(lambda: child(own, pod, "grandchild"))
                print(name, said(mine, "after"), flush=True)

def fork(work):
    pid = os.fork()
    if pid == 0:
        work()
        sys.exit(7)  # in order, so that all that was inherited is let go of
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)

with Runtime.open() as runtime, runtime.pod("p") as pod:
    pod.launch("sleep", "1000", rootfs=sys.argv[1])
    print(said(pod, "before"), flush=True)
    under_way = pod.exec("cat")
    under_way.write(b"a")
    output = iter(under_way.stdout)
    assert next(output) == b"a"
    fork(lambda: child(runtime, pod, "one"))
    two = multiprocessing.get_context("fork").Process(target=child, args=(runtime, pod, "two"))
    two.start()
    two.join()
    print(two.exitcode)
    under_way.write(b"b")
    assert next(output) == b"b"
    print(said(pod, "after"), [one.id for one in runtime.list().pods])
"""

_LET_GO_OF = """
import asyncio, gc, os, sys
from vc_core import Runtime

async def begin():
    runtime = await Runtime.open().__aenter__()
    pod = await runtime.create("p")
    await pod.start()
    return runtime, pod

loop = asyncio.new_event_loop()
runtime, pod = loop.run_until_complete(begin())
pid = os.fork()
if pid == 0:
    del runtime, pod, loop
    gc.collect()
    print("child", flush=True)
    sys.exit(7)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
print(loop.run_until_complete(pod.status()).state.value)
loop.run_until_complete(pod.delete(force=True))
loop.run_until_complete(runtime.__aexit__(None, None, None))
loop.close()
"""

_NEVER_LEFT = """
import sys
from vc_core.blocking import Runtime

runtime = Runtime.open()
pod = runtime.pod("p").__enter__()
print(pod.run("echo", "up", rootfs=sys.argv[1]).stdout.decode(), end="", flush=True)
if sys.argv[2] == "raises":
    raise SystemExit("enough")
"""


def _python(host, program, *args):
    words = [sys.executable, "-P", "-W", "error", "-c", program, *map(str, args)]
    return subprocess.run(
        words, capture_output=True, text=True, timeout=120, env=host.environ(), check=False
    )


def test_a_child_of_fork_has_runtimes_of_its_own_and_the_parent_goes_on(host, busybox):
    done = _python(host, _FORK, busybox)
    told = "this runtime was opened before fork()"
    grandchild = [f"grandchild {told}", "grandchild own", "grandchild parents", "7"]
    one = [f"one {told}", "one own", "one parents", *grandchild, "one after", "7"]
    two = [f"two {told}", "two own", "two parents", "0"]
    assert (done.stdout.splitlines(), done.stderr) == (["before", *one, *two, "after ['p']"], "")
    assert host.machines() == []


def test_a_child_of_fork_may_let_go_of_what_it_has_inherited(host):
    done = _python(host, _LET_GO_OF)
    assert (done.stdout.splitlines(), done.stderr) == (["child", "7", "running"], "")
    assert host.machines() == []


@pytest.mark.parametrize("way", ["ends", "raises"])
def test_a_block_that_is_never_left_ends_with_the_program(host, busybox, way):
    done = _python(host, _NEVER_LEFT, busybox, way)
    assert done.stdout == "up\n"
    assert done.stderr == ("enough\n" if way == "raises" else "")
    assert host.machines() == []
    assert host.vc("pod", "ls", "--json").stdout.split() == [b"[]"]
