"""The API for programs without asyncio: every call blocks until it is done.

    from vc_core.blocking import Runtime

    with Runtime.open() as runtime, runtime.pod(memory_mib=512) as pod:
        result = pod.run("python3", "-c", "print(6 * 7)", timeout_s=10)

A runtime has its own thread with an event loop; its objects may be used from any thread. A call
that is interrupted (Ctrl-C) is cancelled and cleaned up before KeyboardInterrupt is raised.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Self

from vc_core import images
from vc_core.config import Config
from vc_core.engine.api import container, files, pod, process, runtime
from vc_core.engine.api.children import Children
from vc_core.engine.host.volumes import Volumes
from vc_core.engine.lifecycle.standstill import Standstill
from vc_core.engine.wiring.catalog import Factory
from vc_core.spec import PortMapping
from vc_core.sync_calls import (
    Loop,
    SyncObject,
    sync_call,
    sync_context,
    sync_factory,
    sync_iterator,
)


class Process(SyncObject[process.Process]):
    """One process; see `vc_core.Process`."""

    output = sync_iterator(process.Process.output)
    write = sync_call(process.Process.write)
    close_stdin = sync_call(process.Process.close_stdin)
    wait = sync_call(process.Process.wait)
    communicate = sync_call(process.Process.communicate)
    kill = sync_call(process.Process.kill)
    resize = sync_call(process.Process.resize)
    close = sync_call(process.Process.close)

    @property
    def stdout(self) -> Iterator[bytes]:
        """Yields the standard output as it arrives."""
        return self._one(self._inner.stdout)

    @property
    def stderr(self) -> Iterator[bytes]:
        """Yields the error output as it arrives."""
        return self._one(self._inner.stderr)

    def _one(self, chunks: AsyncIterator[bytes]) -> Iterator[bytes]:
        with contextlib.suppress(StopAsyncIteration):
            while True:
                yield self._loop.run(anext(chunks))


class Files(SyncObject[files.Files]):
    """A container's files; see `vc_core.Files`."""

    read = sync_call(files.Files.read)
    write = sync_call(files.Files.write)
    list = sync_call(files.Files.list)
    watch = sync_iterator(files.Files.watch)
    copy_in = sync_call(files.Files.copy_in)
    copy_out = sync_call(files.Files.copy_out)
    archive = sync_iterator(files.Files.archive)

    def unarchive(self, path: str, chunks: Iterable[bytes], name: str = ".") -> None:
        """Unpacks a tar archive; see `vc_core.Files.unarchive`."""

        async def given() -> AsyncGenerator[bytes, None]:
            for chunk in chunks:
                yield chunk

        self._loop.run(self._inner.unarchive(path, given(), name))


class Container(SyncObject[container.Container]):
    """A container; see `vc_core.Container`."""

    start = sync_factory(container.Container.start, Process)
    stop = sync_call(container.Container.stop)
    delete = sync_call(container.Container.delete)
    exec = sync_factory(container.Container.exec, Process)
    kill = sync_call(container.Container.kill)
    update = sync_call(container.Container.update)
    annotations = sync_call(container.Container.annotations)
    annotate = sync_call(container.Container.annotate)
    ps = sync_call(container.Container.ps)
    processes = sync_call(container.Container.processes)
    stats = sync_call(container.Container.stats)
    wait = sync_call(container.Container.wait)
    process = sync_factory(container.Container.process, Process)
    logs = sync_iterator(container.Container.logs)

    @property
    def files(self) -> Files:
        """The files that the container sees, including its volumes."""
        return Files(self._inner.files, self._loop)

    spec = sync_call(container.Container.spec)
    status = sync_call(container.Container.status)

    @property
    def id(self) -> str:
        """Unique in its pod."""
        return self._inner.id


class Pod(SyncObject[pod.Pod]):
    """A pod; see `vc_core.Pod`."""

    start = sync_call(pod.Pod.start)
    stop = sync_call(pod.Pod.stop)
    pause = sync_call(pod.Pod.pause)
    resume = sync_call(pod.Pod.resume)
    connect = sync_call(pod.Pod.connect)
    delete = sync_call(pod.Pod.delete)
    snapshot = sync_call(pod.Pod.snapshot)
    create_container = sync_factory(pod.Pod.create_container, Container)
    annotations = sync_call(pod.Pod.annotations)
    annotate = sync_call(pod.Pod.annotate)
    launch = sync_factory(pod.Pod.launch, Container)
    run = sync_call(pod.Pod.run)
    exec = sync_factory(pod.Pod.exec, Process)
    only_container = sync_call(pod.Pod.only_container)
    status = sync_call(pod.Pod.status)
    stats = sync_call(pod.Pod.stats)
    ports = sync_call(pod.Pod.ports)
    network_denials = sync_call(pod.Pod.network_denials)
    console = sync_call(pod.Pod.console)
    refresh = sync_call(pod.Pod.refresh)
    ended = sync_call(pod.Pod.ended)
    close = sync_call(pod.Pod.close)

    @property
    def id(self) -> str:
        """Unique on this host."""
        return self._inner.id

    @property
    def files(self) -> Files:
        """The files of its only container."""
        return Files(self._inner.files, self._loop)

    def container(self, container_id: str) -> Container:
        """Returns one of its containers, which need not exist."""
        return Container(self._inner.container(container_id), self._loop)

    def fork(
        self, count: int = 1, ports: Sequence[PortMapping] | None = None, network: str = ""
    ) -> Children[Pod]:
        """Starts copies of the running pod; see `vc_core.Pod.fork`."""
        children = self._loop.run(self._inner.fork(count, ports, network))
        times = Standstill(children.stood_still_s, children.detached_s)
        return Children((Pod(child, self._loop) for child in children), times)


class Images(SyncObject[images.Images]):
    """The images of this host; see `vc_core.Images`."""

    list = sync_call(images.Images.list)
    get = sync_call(images.Images.get)
    verify = sync_call(images.Images.verify)
    take = sync_call(images.Images.take)
    tag = sync_call(images.Images.tag)
    remove = sync_call(images.Images.remove)
    prune = sync_call(images.Images.prune)


class Runtime(SyncObject[runtime.Runtime]):
    """All pods of this host; see `vc_core.Runtime`. Its thread ends with a
    `with`, or by `close`.
    """

    create = sync_factory(runtime.Runtime.create, Pod)
    pod = sync_context(runtime.Runtime.pod, Pod)
    get = sync_factory(runtime.Runtime.get, Pod)
    restore = sync_factory(runtime.Runtime.restore, Pod)
    delete = sync_call(runtime.Runtime.delete)
    list = sync_call(runtime.Runtime.list)
    events = sync_iterator(runtime.Runtime.events)
    make_template = sync_call(runtime.Runtime.make_template)
    remove_template = sync_call(runtime.Runtime.remove_template)
    remove_image = sync_call(runtime.Runtime.remove_image)
    prune_images = sync_call(runtime.Runtime.prune_images)
    remove_volume = sync_call(runtime.Runtime.remove_volume)
    diagnose = sync_call(runtime.Runtime.diagnose)

    @classmethod
    def open(
        cls, config: Config | None = None, plugins: Mapping[tuple[str, str], Factory] | None = None
    ) -> Self:
        """Opens a runtime; see `vc_core.Runtime.open`."""
        return cls(runtime.Runtime.open(config, plugins), Loop())

    @property
    def volumes(self) -> Volumes:
        """Named folders that are kept when pods are deleted."""
        return self._inner.volumes

    @property
    def images(self) -> Images:
        """The images that containers are made from."""
        return Images(self._inner.images, self._loop)

    def close(self) -> None:
        """Closes connections and the thread; pods keep running. May be called twice."""
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
