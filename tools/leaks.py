"""Finds what a fault in any step of any operation leaves behind, and writes it into
docs/reliability.md: `make leaks`.

The engine is the real one; the drivers are the mocks of vc_core.testing, which count what exists.
Every combination has a world of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from msgspec import structs

from vc_core.config import Config
from vc_core.driver_kit import mountinfo
from vc_core.engine.api.pod import Pod
from vc_core.engine.api.runtime import Runtime
from vc_core.engine.host import mount_calls
from vc_core.spec import (
    ContainerSpec,
    HostDevice,
    Mount,
    OperationError,
    ProcessSpec,
    Resources,
    Rootfs,
    Stdio,
    VcError,
)
from vc_core.testing import mock_runtime
from vc_core.testing.mocks.hypervisor import ALL
from vc_core.testing.mocks.world import World
from vc_core.testing.pods import mock_config

PAGE = Path(__file__).resolve().parents[1] / "docs/reliability.md"
BEGIN, END = "<!-- begin of what tools/leaks.py writes -->", "<!-- end of it -->"
FAULTS = ("fails before", "fails after", "caller killed")
NOTHING, TAKEN_ALONG = "nothing", "in the pod"
_MOST_STEPS = 300

Call = Callable[[Runtime, Path], Awaitable[object]]


@dataclass(frozen=True)
class Operation:
    """A call of the API.

    Attributes:
        name: for people.
        prepare: what exists before.
        call: the call.
    """

    name: str
    prepare: Call
    call: Call


def _container(name: str, folder: Path) -> ContainerSpec:
    """One that needs something of every driver."""
    return ContainerSpec(
        id=name,
        rootfs=Rootfs(path=folder / "root"),
        process=ProcessSpec(args=("sleep",)),
        mounts=(Mount(source=folder / "data", destination="/data"),),
        devices=(HostDevice(path=folder / "x.dev", destination="/dev/x", read_only=True),),
        stdio=Stdio.NULL,
        resources=Resources(cpu_quota_us=200_000, memory_bytes=64 << 20),
    )


async def _nothing(_: Runtime, __: Path) -> None:
    pass


async def _created(runtime: Runtime, folder: Path) -> Pod:
    pod = await runtime.create("p")
    await pod.create_container(_container("a", folder))
    return pod


async def _running(runtime: Runtime, folder: Path) -> Pod:
    pod = await _created(runtime, folder)
    await pod.start()
    return pod


async def _paused(runtime: Runtime, folder: Path) -> None:
    await (await _running(runtime, folder)).pause()


async def _saved(runtime: Runtime, folder: Path) -> None:
    await (await _running(runtime, folder)).snapshot("s")


async def _with_container(runtime: Runtime, folder: Path) -> None:
    pod = await _running(runtime, folder)
    await pod.create_container(_container("b", folder))


async def _pod(runtime: Runtime) -> Pod:
    return await runtime.get("p")


async def _exec(runtime: Runtime, _: Path) -> None:
    spec = ProcessSpec(args=("true",))
    await (await _pod(runtime)).container("a").exec(spec, Stdio.NULL)


def _of_pod(verb: str, **options: object) -> Call:
    async def call(runtime: Runtime, _: Path) -> None:
        await getattr(await _pod(runtime), verb)(**options)

    return call


def _of_container(name: str, verb: str, *arguments: object, **options: object) -> Call:
    async def call(runtime: Runtime, _: Path) -> None:
        await getattr((await _pod(runtime)).container(name), verb)(*arguments, **options)

    return call


async def _create_container(runtime: Runtime, folder: Path) -> None:
    await (await _pod(runtime)).create_container(_container("b", folder))


OPERATIONS = (
    Operation("create a pod", _nothing, lambda runtime, _: runtime.create("p")),
    Operation("start a pod", _created, _of_pod("start")),
    Operation("pause a pod", _running, _of_pod("pause")),
    Operation("resume a pod", _paused, _of_pod("resume")),
    Operation("stop a pod", _running, _of_pod("stop", grace_s=0)),
    Operation("delete a pod that runs", _running, _of_pod("delete")),
    Operation("delete a pod by force", _running, _of_pod("delete", force=True)),
    Operation("save a snapshot", _running, _of_pod("snapshot", name="s")),
    Operation("restore a snapshot", _saved, lambda runtime, _: runtime.restore("s", "q")),
    Operation("fork a pod", _running, _of_pod("fork")),
    Operation("create a container", _running, _create_container),
    Operation("start a container", _with_container, _of_container("b", "start")),
    Operation("stop a container", _running, _of_container("a", "stop", 0)),
    Operation("delete a container", _running, _of_container("a", "delete", force=True)),
    Operation("change limits", _running, _of_container("a", "update", Resources(pids=7))),
    Operation("start a process", _running, _exec),
    Operation("list pods", _running, lambda runtime, _: runtime.list(ask_guests=True)),
)


@dataclass(frozen=True)
class Outcome:
    """Of one fault in one step.

    Attributes:
        step: the operation of the contract that failed; empty when there are no more steps.
        left: NOTHING, TAKEN_ALONG, or what was left after the pods were deleted.
    """

    step: str
    left: str


async def outcome(operation: Operation, number: int, fault: str) -> Outcome:
    """What is left by a fault in a step.

    What a pod's record knows of is "in the pod": the next call uses or removes it, and deleting
    the pod does.
    """
    with _place() as folder:
        world = World(folder / "run", capabilities=ALL)
        config = _config(folder, operation)
        runtime = mock_runtime(world, config)
        await operation.prepare(runtime, folder)
        before, begin = _seen(world), len(world.faults.calls)
        world.faults.at = begin + number
        world.faults.is_after = fault == "fails after"
        world.faults.is_deadly = fault == "caller killed"
        with contextlib.suppress(OperationError, VcError):
            await operation.call(runtime, folder)
        calls = world.faults.calls[begin:]
        was_hit = len(calls) > number
        world.faults.at = -1
        if fault == "caller killed":
            with contextlib.suppress(VcError):
                await runtime.close()
            world.faults.is_deadly, world.connections = False, 0
            world.locks.clear()  # the kernel gives back what a dead process held
            runtime = mock_runtime(world, config)
        added = _seen(world) - before
        await _delete_all(runtime)
        await runtime.close()
        after = sorted(_seen(world)) + _files(folder, with_snapshot=_has_snapshot(operation))
    if not was_hit:
        return Outcome("", NOTHING)
    left = ", ".join(after) or (TAKEN_ALONG if added else NOTHING)
    return Outcome(calls[number], left)


@contextlib.contextmanager
def _place() -> Iterator[Path]:
    """A folder for one world. What is mounted in it is not removed with it."""
    folder = Path(tempfile.mkdtemp(prefix="vc-leaks-"))
    for name in ("data", "root"):
        (folder / name).mkdir()
    (folder / "x.dev").touch()
    try:
        yield folder
    finally:
        for mount in reversed(mountinfo.below(folder)):
            mount_calls.unmount(mount.point)
        shutil.rmtree(folder)


def _has_snapshot(operation: Operation) -> bool:
    return "snapshot" in operation.name


def _config(folder: Path, operation: Operation) -> Config:
    """With a network, which saved pods cannot have."""
    config = mock_config(folder)
    is_saved = any(word in operation.name for word in ("snapshot", "fork"))
    use = structs.replace(config.use, network="mock")
    return config if is_saved else structs.replace(config, use=use)


async def _delete_all(runtime: Runtime) -> None:
    for pod in (await runtime.list()).pods:
        await runtime.delete(pod.id, force=True)


def _seen(world: World) -> set[str]:
    return {*world.residue(), *(f"record of {pod}" for pod in world.records)}


def _files(folder: Path, with_snapshot: bool) -> list[str]:
    """Half a saved machine; a whole one is what was asked for."""
    halves = [*folder.glob("**/.*.new"), *folder.glob("**/*.half")]
    forks = [*folder.glob("templates/forks/*/*")] if not with_snapshot else []
    return [f"file {one.relative_to(folder)}" for one in (*halves, *forks)]


async def rows(operation: Operation) -> dict[str, list[str]]:
    """What each fault leaves, by step. A step that comes several times has the worst of them."""
    found: dict[str, list[str]] = {}
    for column, fault in enumerate(FAULTS):
        for number in range(_MOST_STEPS):
            if fault == "fails after" and number == 0:
                continue  # the lock: a fault after it was given takes it along
            one = await outcome(operation, number, fault)
            if not one.step:
                break
            cells = found.setdefault(one.step, [NOTHING] * len(FAULTS))
            if _rank(one.left) > _rank(cells[column]):
                cells[column] = one.left
        else:
            raise AssertionError(f"{operation.name} has no end")
    return found


def _rank(left: str) -> int:
    return {NOTHING: 0, TAKEN_ALONG: 1}.get(left, 2)


def _rows_of(number: int) -> dict[str, list[str]]:
    logging.disable(logging.WARNING)  # faults are logged
    return asyncio.run(rows(OPERATIONS[number]))


def matrix() -> dict[str, dict[str, list[str]]]:
    """Of all operations; some 2,000 worlds, which take minutes."""
    with ProcessPoolExecutor() as pool:
        found = pool.map(_rows_of, range(len(OPERATIONS)))
        return {operation.name: one for operation, one in zip(OPERATIONS, found, strict=True)}


def text(found: dict[str, dict[str, list[str]]]) -> str:
    """The tables, one for each operation."""
    lines = []
    for name, steps in found.items():
        lines += [f"### {name[0].upper()}{name[1:]}", ""]
        lines += [f"| step | {' | '.join(FAULTS)} |", "|---|---|---|---|"]
        lines += [f"| `{step}` | {' | '.join(cells)} |" for step, cells in steps.items()]
        lines.append("")
    return "\n".join(lines)


def page() -> str:
    """docs/reliability.md with the tables of now."""
    head, _, rest = PAGE.read_text().partition(BEGIN)
    _, _, tail = rest.partition(END)
    return f"{head}{BEGIN}\n\n{text(matrix())}\n{END}{tail}"


if __name__ == "__main__":
    PAGE.write_text(page())
