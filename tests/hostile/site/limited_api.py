"""A program that uses the API against a hostile guest: a file for its peak of memory, then
"asyncio" or "blocking".

Each line on stdin is one round: the name of a pod, which is there when it is given. Each call of
the round writes two lines of JSON: that it begins, and its outcome. "null" ends the round. Logs go
to stderr, as do Python's own warnings.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import logging
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

from limited import limited

from vc_core import Container, Files, Pod, ProcessSpec, Resources, Runtime, Stdio, VcError, blocking
from vc_core.engine.session import exit_reason

_OWN_LIMIT_S = (
    0.2  # for calls that have no deadline of their own: they wait for what a user's process does
)
_MOST_ITEMS = 200
_SHOWN = 300
_SOON_S = 0.1  # a call waits for the end of a machine whose connection broke; no machine ends here


def say(what: object) -> None:
    print(json.dumps(what), flush=True)


def outcome(error: BaseException | None) -> list[object]:
    """Whether it is one that a call may have, its type and text."""
    if error is None:
        return [True, "", ""]
    return [isinstance(error, VcError), type(error).__name__, str(error)[:_SHOWN]]


class GaveUp(Exception):
    """The program itself has had enough of a call that has no deadline."""


# --- asyncio --------------------------------------------------------------------------------------


async def call(name: str, work: Callable[[], Awaitable[Any]], own_limit: bool = False) -> Any:
    """Calls it and tells of the outcome; gives what it gives, or None."""
    say(["begins", name])
    found, error = None, None
    try:
        async with asyncio.timeout(_OWN_LIMIT_S if own_limit else None) as limit:
            found = await work()
    except TimeoutError as late:
        error = None if limit.expired() else late
    except BaseException as raised:
        error = raised
    say([name, *outcome(error)])
    error = None
    # The error holds our frame, that the error: what the call has kept would stay until Python
    # looks.
    gc.collect()
    return found


async def some_of(items: AsyncIterator[Any]) -> None:
    count = 0
    async for _ in items:
        count += 1
        if count == _MOST_ITEMS:
            break
    if hasattr(items, "aclose"):
        await items.aclose()


async def asyncio_round(pod_id: str) -> None:
    folder = Path(tempfile.mkdtemp(prefix="api-", dir=Path.cwd()))
    (folder / "mine").write_text("mine")
    async with Runtime.open() as runtime:
        pod = await runtime.get(pod_id)
        box = pod.container(pod_id)
        await look(runtime, pod, box)
        await use_processes(pod, box)
        await use_files(box.files, folder)
        await end(runtime, pod, box)
    say(["beside the target", (folder / "mine").read_text() == "mine", "", ""])


async def look(runtime: Runtime, pod: Pod, box: Container) -> None:
    await call("list", lambda: runtime.list(ask_guests=True))
    await call("status", pod.status)
    await call("refresh", pod.refresh)
    await call("pod.stats", pod.stats)
    await call("console", pod.console)
    await call("annotate", lambda: pod.annotate({"a": "b"}))
    await call("container.status", box.status)
    await call("container.stats", box.stats)
    await call("container.annotate", lambda: box.annotate({"a": "b"}))
    await call("processes", box.processes)
    await call("ps", box.ps, own_limit=True)
    await call("update", lambda: box.update(Resources(memory_bytes=64 << 20)))
    await call("logs", lambda: some_of(box.logs()))
    await call("logs, followed", lambda: some_of(box.logs(follow=True)), own_limit=True)
    await call("events", lambda: some_of(runtime.events()), own_limit=True)
    await call("events, followed", lambda: some_of(runtime.events(follow=True)), own_limit=True)
    await call("ended", pod.ended, own_limit=True)
    await call("container.wait", box.wait, own_limit=True)


async def use_processes(pod: Pod, box: Container) -> None:
    await call("exec, thrown away", lambda: box.exec(ProcessSpec(args=("ls",)), Stdio.NULL))
    for name, use in _ASYNC_USES.items():
        await use_process(pod, box, name, use)
        gc.collect()  # one process keeps up to 64 MiB of output; the next one has its own


async def use_process(
    pod: Pod, box: Container, name: str, use: Callable[[Any], Awaitable[Any]]
) -> None:
    # One that the guest lets begin, or else the first one of the container, which is there in any
    # case.
    process = await call(f"exec for {name}", lambda: pod.exec("ls")) or await box.process()
    await call(name, lambda: use(process), own_limit=name not in _BOUNDED)
    await call(f"close after {name}", process.close)


async def use_files(files: Files, folder: Path) -> None:
    await call("files.read", lambda: files.read("/etc/hosts"))
    await call("files.list", lambda: files.list("/etc"))
    await call("files.write", lambda: files.write("/tmp/a", b"a" * 100_000))
    await call("files.watch", lambda: some_of(files.watch("/etc")), own_limit=True)
    await call("files.copy_in", lambda: files.copy_in(folder / "mine", "/tmp/"))
    await call("files.copy_out", lambda: files.copy_out("/etc/hosts", folder / "hosts"))
    await call("files.copy_out of a folder", lambda: files.copy_out("/etc", folder))
    await call("files.archive", lambda: some_of(files.archive("/etc")))
    await call("files.unarchive", lambda: files.unarchive("/tmp", _chunks()))


async def end(runtime: Runtime, pod: Pod, box: Container) -> None:
    root = Path.cwd() / "root"
    await call("launch", lambda: pod.launch("sleep", rootfs=root))
    await call("run", lambda: pod.run("true", rootfs=root, timeout_s=0.2))
    await call("pause", pod.pause)
    await call("resume", pod.resume)
    await call("snapshot", lambda: pod.snapshot(f"saved-{pod.id}"))
    forks = await call("fork", lambda: pod.fork(2))
    for fork in forks or ():
        await call("delete a fork", lambda: fork.delete(force=True))  # noqa: B023
    await call("kill", lambda: box.kill(signal.SIGTERM))
    await call("kill everything", lambda: box.kill(signal.SIGKILL, everything=True))
    await call("container.stop", lambda: box.stop(grace_s=0.1))
    await call("container.delete", lambda: box.delete(force=True))
    await call("pod.stop", lambda: pod.stop(grace_s=0.1))
    await call("pod.start", pod.start)
    await call("pod.delete", pod.delete)
    left = await runtime.list()
    say(["what is left", not left.pods and not left.damaged, "", str(left)[:_SHOWN]])


async def _chunks() -> AsyncIterator[bytes]:
    yield bytes(100_000)


_ASYNC_USES: dict[str, Callable[[Any], Awaitable[Any]]] = {
    "communicate": lambda one: one.communicate(b"in" * 100_000, timeout_s=0.2),
    "output": lambda one: some_of(one.output()),
    "stdout": lambda one: some_of(one.stdout),
    "stderr": lambda one: some_of(one.stderr),
    "both streams": lambda one: asyncio.gather(some_of(one.stdout), some_of(one.stderr)),
    "write": lambda one: one.write(b"in" * 100_000),
    "close_stdin": lambda one: one.close_stdin(),
    "process.wait": lambda one: one.wait(),
    "process.kill": lambda one: one.kill(signal.SIGKILL),
    "resize": lambda one: one.resize(24, 80),
}
_BOUNDED = {"communicate", "process.kill", "resize"}


# --- without asyncio ------------------------------------------------------------------------------


def blocking_call(name: str, work: Callable[[], Any]) -> Any:
    """Calls it and tells of the outcome; gives what it gives, or None."""
    say(["begins", name])
    found, error = None, None
    try:
        found = work()
    except BaseException as raised:
        error = raised
    say([name, *outcome(error)])
    error = None
    # The error holds our frame, that the error: what the call has kept would stay until Python
    # looks.
    gc.collect()
    return found


def first_of(items: Iterator[Any]) -> None:
    for _, _ in zip(range(_MOST_ITEMS), items, strict=False):
        pass


def blocking_use(
    pod: blocking.Pod, box: blocking.Container, name: str, use: Callable[[Any], Any]
) -> None:
    process = blocking_call(f"exec for {name}", lambda: pod.exec("ls")) or box.process()
    blocking_call(name, lambda: use(process))
    blocking_call(f"close after {name}", process.close)


def blocking_round(pod_id: str) -> None:
    folder = Path(tempfile.mkdtemp(prefix="api-", dir=Path.cwd()))
    (folder / "mine").write_text("mine")
    with blocking.Runtime.open() as runtime:
        pod = runtime.get(pod_id)
        box = pod.container(pod_id)
        files = box.files
        blocking_call("list", lambda: runtime.list(ask_guests=True))
        blocking_call("status", pod.status)
        blocking_call("refresh", pod.refresh)
        blocking_call("pod.stats", pod.stats)
        blocking_call("console", pod.console)
        blocking_call("annotate", lambda: pod.annotate({"a": "b"}))
        blocking_call("container.status", box.status)
        blocking_call("container.stats", box.stats)
        blocking_call("processes", box.processes)
        blocking_call("update", lambda: box.update(Resources(memory_bytes=64 << 20)))
        blocking_call("logs", lambda: first_of(box.logs()))
        blocking_call("events", lambda: first_of(runtime.events()))
        blocking_call("exec, thrown away", lambda: box.exec(ProcessSpec(args=("ls",)), Stdio.NULL))
        uses: dict[str, Callable[[Any], Any]] = {
            "communicate": lambda one: one.communicate(b"in" * 100_000, timeout_s=0.2),
            "output": lambda one: first_of(one.output()),
            "stdout": lambda one: first_of(one.stdout),
            "stderr": lambda one: first_of(one.stderr),
            "write": lambda one: one.write(b"in" * 100_000),
            "close_stdin": lambda one: one.close_stdin(),
            "process.wait": lambda one: one.wait(),
            "process.kill": lambda one: one.kill(signal.SIGKILL),
            "resize": lambda one: one.resize(24, 80),
        }
        for name, use in uses.items():
            blocking_use(pod, box, name, use)
            gc.collect()  # one process keeps up to 64 MiB of output; the next one has its own
        blocking_call("files.read", lambda: files.read("/etc/hosts"))
        blocking_call("files.list", lambda: files.list("/etc"))
        blocking_call("files.write", lambda: files.write("/tmp/a", b"a" * 100_000))
        blocking_call("files.watch", lambda: first_of(files.watch("/etc")))
        blocking_call("files.copy_in", lambda: files.copy_in(folder / "mine", "/tmp/"))
        blocking_call("files.copy_out", lambda: files.copy_out("/etc/hosts", folder / "hosts"))
        blocking_call("files.archive", lambda: first_of(files.archive("/etc")))
        blocking_call("files.unarchive", lambda: files.unarchive("/tmp", [bytes(100_000)]))
        root = Path.cwd() / "root"
        blocking_call("launch", lambda: pod.launch("sleep", rootfs=root))
        blocking_call("run", lambda: pod.run("true", rootfs=root, timeout_s=0.2))
        blocking_call("snapshot", lambda: pod.snapshot(f"saved-{pod.id}"))
        blocking_call("fork", lambda: pod.fork(1))
        blocking_call("kill", lambda: box.kill(signal.SIGTERM))
        blocking_call("container.stop", lambda: box.stop(grace_s=0.1))
        blocking_call("container.delete", lambda: box.delete(force=True))
        blocking_call("pod.stop", lambda: pod.stop(grace_s=0.1))
        blocking_call("pod.delete", pod.delete)
    say(["beside the target", (folder / "mine").read_text() == "mine", "", ""])


# --- the program ----------------------------------------------------------------------------------


def main() -> None:
    exit_reason._SOON_S = _SOON_S  # type: ignore[attr-defined]
    peak, kind = Path(sys.argv[1]), sys.argv[2]
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    with limited(peak), contextlib.suppress(EOFError):
        for line in sys.stdin:
            if kind == "asyncio":
                asyncio.run(asyncio_round(line.strip()))
            else:
                blocking_round(line.strip())
            gc.collect()  # what nobody has awaited is told now, and belongs to this round
            say(None)


if __name__ == "__main__":
    main()
