"""The contract suite of observers that refuse nothing.

An observer that can refuse operations must be configured to allow those of this suite.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from vc_core.engine.api.runtime import Runtime
from vc_core.spec import ContainerSpec, HypervisorError, OperationError, ProcessSpec, Rootfs
from vc_core.testing.mocks import World
from vc_core.testing.pods import mock_config, mock_runtime
from vc_core.testing.rules import LIMIT_S, rule, time_limit


@dataclass
class ObserverSubject:
    """An observer under test.

    Attributes:
        make: creates an object; each pod has one.
        folder: an empty, private folder.
    """

    make: Callable[[], object]
    folder: Path

    def runtime(self, world: World) -> Runtime:
        """Returns a runtime of mocks with the observer outermost."""
        return mock_runtime(
            world, mock_config(self.folder, "subject"), {("observer", "subject"): self.make}
        )

    def world(self, name: str) -> World:
        """Returns a new world."""
        return World(self.folder / name)


class ObserverContract:
    """All rules of observers. Subclass it and override the fixture `subject`."""

    @pytest.fixture
    def subject(self) -> ObserverSubject:
        """The plugin under test, provided by its author."""
        raise NotImplementedError("give a fixture `subject` that returns an ObserverSubject")

    @rule(
        "observers", "Every hook is `async def` with plain positional parameters and no defaults."
    )
    async def test_it_can_be_wired(self, subject: ObserverSubject) -> None:
        async with subject.runtime(subject.world("run")):
            pass

    @rule("observers", "the operation runs here")
    async def test_every_operation_runs_as_without_it(self, subject: ObserverSubject) -> None:
        with_it, without = subject.world("with"), subject.world("without")
        async with subject.runtime(with_it) as runtime:
            await _live(runtime)
        async with mock_runtime(without, mock_config(subject.folder)) as runtime:
            await _live(runtime)
        assert with_it.faults.calls == without.faults.calls, f"{with_it.faults.calls} ran"

    @rule("observers", "its exception is raised here")
    async def test_failures_reach_the_caller(self, subject: ObserverSubject) -> None:
        world = subject.world("run")
        world.faults.operation = "vm_start"
        async with subject.runtime(world) as runtime:
            pod = await runtime.create("p")
            try:
                await pod.start()
            except HypervisorError:
                return
            except OperationError as error:
                raise AssertionError(
                    f"the machine's failure became {type(error).__name__}: {error}"
                ) from error
        raise AssertionError("a machine that failed has started")

    @rule("observers", "the one way to observe, refuse or delay what another plugin does.")
    async def test_a_cancelled_operation_stays_cancelled(self, subject: ObserverSubject) -> None:
        world = subject.world("run")
        world.is_booting_for_ever = True
        async with subject.runtime(world) as runtime:
            pod = await runtime.create("p")
            starting = asyncio.create_task(pod.start())
            async with time_limit():
                await world.is_waited_for.wait()
            assert not starting.done(), "it did not wait for the machine"
            starting.cancel()
            done, _ = await asyncio.wait([starting], timeout=LIMIT_S)
            assert done, "it went on"
            assert starting.cancelled(), f"it ended by {starting.exception()!r}"

    @rule("observers", "The failure of a listener is logged and affects no other.")
    async def test_its_listeners_do_not_fail(self, subject: ObserverSubject) -> None:
        with _warnings() as told:
            async with subject.runtime(subject.world("run")) as runtime:
                await _live(runtime)
        failed = [line for line in told if line.startswith("a listener of")]
        assert not failed, "; ".join(failed)


async def _live(runtime: Runtime) -> None:
    """Runs every operation of a pod once."""
    pod = await runtime.create("p")
    await pod.start()
    container = await pod.create_container(
        ContainerSpec(id="c", rootfs=Rootfs(path=Path("/")), process=ProcessSpec(args=("sleep",)))
    )
    await container.start()
    process = await container.exec(ProcessSpec(args=("sleep",)))
    await process.kill(9)
    await process.close()
    await pod.pause()
    await pod.resume()
    await container.kill(9)
    await container.delete()
    await pod.stop()
    await pod.delete()


@contextmanager
def _warnings() -> Iterator[list[str]]:
    told: list[str] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            told.append(record.getMessage())

    listener, log = Listener(logging.WARNING), logging.getLogger("vc_core")
    log.addHandler(listener)
    try:
        yield told
    finally:
        log.removeHandler(listener)
