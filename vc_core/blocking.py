"""The same API for programs without asyncio: each call returns when it is done.

    from vc_core.blocking import Runtime

    with Runtime.open() as runtime, runtime.pod(memory_mib=512) as pod:
        result = pod.run("python3", "-c", "print(6 * 7)", timeout_s=10)

A runtime has a thread with a loop of its own; what it gives may be used from any thread. An
interrupted call (Ctrl-C) is cancelled and cleaned up before the interruption goes on.
"""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures.thread  # noqa: F401 (see _leave_all)
import contextlib
import functools
import inspect
import logging
import threading
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
    Iterator,
    Mapping,
)
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from types import TracebackType
from typing import Any, Concatenate, Generic, ParamSpec, Self, TypeVar

from vc_core import images
from vc_core.config import Config
from vc_core.engine.api import container, files, pod, process, runtime
from vc_core.engine.host.volumes import Volumes
from vc_core.engine.wiring.catalog import Factory
from vc_core.engine.wiring.fork_guard import Origin

Inner = TypeVar("Inner")
Outer = TypeVar("Outer", bound="_Blocking[Any]")
P = ParamSpec("P")
T = TypeVar("T")
log = logging.getLogger(__name__)


class Loop:
    """A loop in a thread of its own."""

    def __init__(self) -> None:
        self._origin = Origin()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._loop.run_forever, name="vc-blocking", daemon=True
        )
        self._thread.start()

    def run(self, work: Awaitable[T]) -> T:
        """Runs it to its end; also when we are interrupted."""
        if not self._origin.is_here() and inspect.iscoroutine(work):
            work.close()  # or Python warns that nobody awaited it
        self._origin.require()

        async def awaited() -> T:
            return await work

        future = asyncio.run_coroutine_threadsafe(awaited(), self._loop)
        try:
            return future.result()
        except BaseException:
            if future.cancel():  # it was we who were interrupted
                self._settle()
            raise

    def _settle(self) -> None:
        """Returns when what was cancelled has cleaned up."""

        async def settled() -> None:
            others = asyncio.all_tasks() - {asyncio.current_task()}
            await asyncio.gather(
                *(task for task in others if task.cancelling()), return_exceptions=True
            )

        asyncio.run_coroutine_threadsafe(settled(), self._loop).result()

    def is_open(self) -> bool:
        """Whether it still runs, in this process."""
        return self._origin.is_here() and not self._loop.is_closed()

    def close(self) -> None:
        """Ends the thread."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


class _Blocking(Generic[Inner]):
    """An object of the engine and the loop that it lives in."""

    def __init__(self, inner: Inner, loop: Loop) -> None:
        self._inner = inner
        self._loop = loop


def _call(
    method: Callable[Concatenate[Inner, P], Awaitable[T]],
) -> Callable[Concatenate[_Blocking[Inner], P], T]:
    """The same method, which returns when it is done."""

    @functools.wraps(method)
    def call(self: _Blocking[Inner], /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self._loop.run(method(self._inner, *args, **kwargs))

    return call


def _make(
    method: Callable[Concatenate[Inner, P], Awaitable[T]], kind: Callable[[T, Loop], Outer]
) -> Callable[Concatenate[_Blocking[Inner], P], Outer]:
    """The same for one that gives an object of the engine."""

    @functools.wraps(method)
    def call(self: _Blocking[Inner], /, *args: P.args, **kwargs: P.kwargs) -> Outer:
        return kind(self._loop.run(method(self._inner, *args, **kwargs)), self._loop)

    return call


def _iterate(
    method: Callable[Concatenate[Inner, P], AsyncGenerator[T, None]],
) -> Callable[Concatenate[_Blocking[Inner], P], Iterator[T]]:
    """The same for one that gives one thing after the other."""

    @functools.wraps(method)
    def iterate(self: _Blocking[Inner], /, *args: P.args, **kwargs: P.kwargs) -> Iterator[T]:
        things = method(self._inner, *args, **kwargs)
        try:
            while True:
                yield self._loop.run(anext(things))
        except StopAsyncIteration:
            return
        finally:
            self._loop.run(things.aclose())

    return iterate


class _Block(AbstractContextManager[Outer]):
    """An object of the engine for the length of a block; or of the program, where nobody leaves the block."""

    def __init__(
        self, manager: AbstractAsyncContextManager[T], kind: Callable[[T, Loop], Outer], loop: Loop
    ) -> None:
        self._manager: AbstractAsyncContextManager[Any] = manager
        self._kind: Callable[[Any, Loop], Outer] = kind
        self._loop = loop

    def __enter__(self) -> Outer:
        found = self._kind(self._loop.run(self._manager.__aenter__()), self._loop)
        _blocks[self] = None
        return found

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool | None:
        _blocks.pop(self, None)
        return self._leave(kind, error, trace)

    def _leave(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool | None:
        if self._loop.is_open():  # a runtime that was closed has let its pods be
            return self._loop.run(self._manager.__aexit__(kind, error, trace))
        return None


_blocks: dict[_Block[Any], None] = {}


def _leave_all() -> None:
    """Ends the blocks that the program has not left, the last entered first."""
    while _blocks:
        block, _ = _blocks.popitem()
        try:
            block.__exit__(None, None, None)
        except Exception:
            log.exception("a pod could not be deleted at the program's end")


# Not by atexit: that comes after the threads that the engine works with are shut down. This comes
# before; those whose shutdown was registered by the import of concurrent.futures.thread, which
# comes first, are still there.
getattr(threading, "_register_atexit", atexit.register)(_leave_all)


def _block(
    method: Callable[Concatenate[Inner, P], AbstractAsyncContextManager[T]],
    kind: Callable[[T, Loop], Outer],
) -> Callable[Concatenate[_Blocking[Inner], P], AbstractContextManager[Outer]]:
    """The same for one that gives an object for the length of a block."""

    @functools.wraps(method)
    def block(
        self: _Blocking[Inner], /, *args: P.args, **kwargs: P.kwargs
    ) -> AbstractContextManager[Outer]:
        return _Block(method(self._inner, *args, **kwargs), kind, self._loop)

    return block


class Process(_Blocking[process.Process]):
    """One process, as in `vc_core.Process`."""

    output = _iterate(process.Process.output)
    write = _call(process.Process.write)
    close_stdin = _call(process.Process.close_stdin)
    wait = _call(process.Process.wait)
    communicate = _call(process.Process.communicate)
    kill = _call(process.Process.kill)
    resize = _call(process.Process.resize)
    close = _call(process.Process.close)

    @property
    def stdout(self) -> Iterator[bytes]:
        """What it writes there, as it comes."""
        return self._one(self._inner.stdout)

    @property
    def stderr(self) -> Iterator[bytes]:
        """The same for its errors."""
        return self._one(self._inner.stderr)

    def _one(self, chunks: AsyncIterator[bytes]) -> Iterator[bytes]:
        with contextlib.suppress(StopAsyncIteration):
            while True:
                yield self._loop.run(anext(chunks))


class Files(_Blocking[files.Files]):
    """A container's files, as in `vc_core.Files`."""

    read = _call(files.Files.read)
    write = _call(files.Files.write)
    list = _call(files.Files.list)
    watch = _iterate(files.Files.watch)
    copy_in = _call(files.Files.copy_in)
    copy_out = _call(files.Files.copy_out)
    archive = _iterate(files.Files.archive)

    def unarchive(self, path: str, chunks: Iterable[bytes], name: str = ".") -> None:
        """Unpacks a tar archive, as `vc_core.Files.unarchive`."""

        async def given() -> AsyncGenerator[bytes, None]:
            for chunk in chunks:
                yield chunk

        self._loop.run(self._inner.unarchive(path, given(), name))


class Container(_Blocking[container.Container]):
    """A container, as in `vc_core.Container`."""

    start = _make(container.Container.start, Process)
    stop = _call(container.Container.stop)
    delete = _call(container.Container.delete)
    exec = _make(container.Container.exec, Process)
    kill = _call(container.Container.kill)
    update = _call(container.Container.update)
    annotations = _call(container.Container.annotations)
    annotate = _call(container.Container.annotate)
    ps = _call(container.Container.ps)
    processes = _call(container.Container.processes)
    stats = _call(container.Container.stats)
    wait = _call(container.Container.wait)
    process = _make(container.Container.process, Process)
    logs = _iterate(container.Container.logs)

    @property
    def files(self) -> Files:
        """What it sees, volumes and all."""
        return Files(self._inner.files, self._loop)

    spec = _call(container.Container.spec)
    status = _call(container.Container.status)

    @property
    def id(self) -> str:
        """Unique in its pod."""
        return self._inner.id


class Pod(_Blocking[pod.Pod]):
    """A pod, as in `vc_core.Pod`."""

    start = _call(pod.Pod.start)
    stop = _call(pod.Pod.stop)
    pause = _call(pod.Pod.pause)
    resume = _call(pod.Pod.resume)
    delete = _call(pod.Pod.delete)
    snapshot = _call(pod.Pod.snapshot)
    create_container = _make(pod.Pod.create_container, Container)
    annotations = _call(pod.Pod.annotations)
    annotate = _call(pod.Pod.annotate)
    launch = _make(pod.Pod.launch, Container)
    run = _call(pod.Pod.run)
    exec = _make(pod.Pod.exec, Process)
    only_container = _call(pod.Pod.only_container)
    status = _call(pod.Pod.status)
    stats = _call(pod.Pod.stats)
    console = _call(pod.Pod.console)
    refresh = _call(pod.Pod.refresh)
    ended = _call(pod.Pod.ended)
    close = _call(pod.Pod.close)

    @property
    def id(self) -> str:
        """Unique on this host."""
        return self._inner.id

    @property
    def files(self) -> Files:
        """Those of its only container."""
        return Files(self._inner.files, self._loop)

    def container(self, container_id: str) -> Container:
        """One of its containers, which need not exist."""
        return Container(self._inner.container(container_id), self._loop)

    def fork(self, count: int = 1) -> tuple[Pod, ...]:
        """More pods that go on from where this one is now, as `vc_core.Pod.fork`."""
        return tuple(Pod(child, self._loop) for child in self._loop.run(self._inner.fork(count)))


class Images(_Blocking[images.Images]):
    """The images of this host, as `vc_core.Images`."""

    list = _call(images.Images.list)
    get = _call(images.Images.get)
    verify = _call(images.Images.verify)
    take = _call(images.Images.take)
    tag = _call(images.Images.tag)
    remove = _call(images.Images.remove)
    prune = _call(images.Images.prune)


class Runtime(_Blocking[runtime.Runtime]):
    """All pods of this host, as `vc_core.Runtime`. Its thread ends with a `with`, or by `close`."""

    create = _make(runtime.Runtime.create, Pod)
    pod = _block(runtime.Runtime.pod, Pod)
    get = _make(runtime.Runtime.get, Pod)
    restore = _make(runtime.Runtime.restore, Pod)
    delete = _call(runtime.Runtime.delete)
    list = _call(runtime.Runtime.list)
    events = _iterate(runtime.Runtime.events)
    make_template = _call(runtime.Runtime.make_template)
    remove_template = _call(runtime.Runtime.remove_template)
    remove_image = _call(runtime.Runtime.remove_image)
    prune_images = _call(runtime.Runtime.prune_images)
    remove_volume = _call(runtime.Runtime.remove_volume)
    diagnose = _call(runtime.Runtime.diagnose)

    @classmethod
    def open(
        cls, config: Config | None = None, plugins: Mapping[tuple[str, str], Factory] | None = None
    ) -> Self:
        """Opens it, as `vc_core.Runtime.open`."""
        return cls(runtime.Runtime.open(config, plugins), Loop())

    @property
    def volumes(self) -> Volumes:
        """Folders that outlive pods."""
        return self._inner.volumes

    @property
    def images(self) -> Images:
        """What containers are made from."""
        return Images(self._inner.images, self._loop)

    def close(self) -> None:
        """Ends connections and the thread; pods go on. May be called twice."""
        if self._loop.is_open():
            self._loop.run(self._inner.close())
            self._loop.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
