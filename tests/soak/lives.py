"""Lives of pods, each with random operations, and somebody killed or something wrong meanwhile.

Life number n is determined by the seed and n, but for what the kernel and the clock add.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import subprocess
import time
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from vc_runtime.records import pod_id_of

from tests.e2e.conftest import Host, new_host
from tests.e2e.libvirtd import Libvirtd
from tests.soak import faults
from tests.soak.engine import Engine
from tests.soak.faults import Trouble, Victim
from tests.soak.report import Report
from vc_core.defaults import Start
from vc_core.engine.api.pod import Pod
from vc_core.engine.api.runtime import Runtime
from vc_core.engine.state.states import State
from vc_core.spec import ContainerSpec, PortMapping, ProcessSpec, Resources, Rootfs, Stdio, VcError

# How often each kind of life comes, and who is killed in it, if anybody is.
KINDS = {"api": 48, "client": 28, "network": 10, "libvirt": 7, "engine": 4, "pool": 3}
_VICTIMS = {
    "api": (Victim.MACHINE,),
    "client": (Victim.CLIENT, Victim.CLIENT, Victim.MACHINE),
    "network": (Victim.MACHINE, Victim.NETWORK_KEEPER, Victim.PASTA),
    "libvirt": (Victim.LIBVIRTD, Victim.MACHINE),
    "engine": (Victim.RUNTIME, Victim.RUNTIME_CHILD, Victim.STAND_IN, Victim.MACHINE),
    "pool": (Victim.POOL_KEEPER,),
}
# The clock jumps in this process only: the commands that are typed do not see it.
_WITHOUT = {("engine", Trouble.CLOCK), ("client", Trouble.CLOCK), ("pool", Trouble.CLOCK)}
_KILLS, _TROUBLES = 0.5, 0.15  # how many lives have one
_STORE_MIB = 24
_WARM_UP = 20  # lives, before the memory of this process is looked at
MOST_FAILURES = 10
_LONGEST_S = 240  # a life, on a host that does much else


@dataclass
class Life:
    """One life.

    Attributes:
        name: of its pod.
        kind: one of KINDS.
        dice: all that is random in it.
        victim: who is killed; None for nobody.
        trouble: what else is wrong; None for nothing.
        is_disturbed: whether that has happened: a call may fail then.
    """

    name: str
    kind: str
    dice: random.Random
    victim: Victim | None
    trouble: Trouble | None
    is_disturbed: bool = False

    @classmethod
    def drawn(cls, seed: int, number: int, kinds: dict[str, int]) -> Life:
        dice = random.Random(f"{seed}/{number}")
        kind = dice.choices(list(kinds), list(kinds.values()))[0]
        victim = dice.choice(_VICTIMS[kind]) if dice.random() < _KILLS else None
        troubles = [one for one in Trouble if (kind, one) not in _WITHOUT]
        trouble = dice.choice(troubles) if dice.random() < _TROUBLES else None
        return cls(f"l{number}", kind, dice, victim, trouble)

    @property
    def pod(self) -> str:
        """Id of its pod."""
        return pod_id_of(self.name) if self.kind == "engine" else self.name


class Soak:
    """Many lives, on a host of their own."""

    def __init__(
        self,
        folder: Path,
        templates: Path,
        report: Report,
        kinds: dict[str, int],
        warm_up: int = _WARM_UP,
        is_alone: bool = True,
    ) -> None:
        """Args:
        folder: an empty one.
        templates: where the template of machines is, or is made.
        report: is added to.
        kinds: which lives there are, and how often.
        warm_up: number of lives before this process is looked at.
        is_alone: whether nobody else starts machines on this host, so that what all have in common
            can be looked at: control groups and ports.
        """
        self._is_alone = is_alone
        self._warm_up = warm_up
        self.report = report
        self._kinds = kinds
        self._folder = folder
        self._templates = templates
        self._spans: dict[str, float] = {}
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        self._groups, self._ports = faults.groups(), faults.listening()
        self._dead, self._empty = faults.dead_children(), set[str]()
        self.hosts = {"qemu": await self._host("qemu", {})}
        if "libvirt" in self._kinds:
            daemons = self._folder / "daemons"
            daemons.mkdir()
            shared = self._folder / "libvirt"
            shared.mkdir()
            self._libvirtd = Libvirtd(daemons, [shared])
            self._stack.callback(self._libvirtd.end)
            own = {"uri": self._libvirtd.uri, "log_dir": str(self._libvirtd.log_dir)}
            settings = {"use": {"hypervisor": "libvirt"}, "hypervisor.libvirt": own}
            self.hosts["libvirt"] = await self._host("libvirt", settings)
        if "engine" in self._kinds:
            bundles = self._folder / "engine"
            bundles.mkdir()
            self._caller = Engine(self.hosts["qemu"][0], bundles)
        self._first_descriptors = self._first_kib = self._lived = 0
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def _host(
        self, name: str, settings: dict[str, dict[str, object]]
    ) -> tuple[Host, Runtime]:
        folder = self._folder / name
        folder.mkdir(exist_ok=True)
        host = new_host(folder, settings, self._templates if name == "qemu" else None)
        store = folder / faults.STORE
        store.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={_STORE_MIB}m,mode=755", "store", store]
        subprocess.run(command, check=True)
        self._stack.callback(subprocess.run, ["umount", store], check=True)
        for part in ("run", "config", "lasting"):
            (store / part).mkdir(mode=0o700)
            (folder / part).symlink_to(store / part)
        host.configure("storage.fs", run_root=store / "run", config_root=store / "config")
        host.configure("data", dir=store / "lasting")
        if "network" in self._kinds and name == "qemu":
            host.configure("use", network="pasta")
        runtime = await self._stack.enter_async_context(host.runtime())
        return host, runtime

    async def run(self, lives: int) -> None:
        """Adds lives to the report until there are so many. The first of each kind, which opens
        what stays open, is not counted.
        """
        if not self._lived:
            for kind in self._kinds:
                await self._live(Life("first", kind, random.Random(0), None, None))
        while self.report.lives < lives and len(self.report.failures) < MOST_FAILURES:
            number = self.report.lives
            life = Life.drawn(self.report.seed, number, self._kinds)
            began = time.monotonic()
            try:
                async with asyncio.timeout(_LONGEST_S):
                    await self._live(life)
            except Exception:
                text = f"life {number} ({life.kind}, {life.victim}, {life.trouble}): "
                self.report.failures.append(text + traceback.format_exc())
                await self._clean(life)
            self.report.seconds += time.monotonic() - began
            self.report.lives += 1
            self.report.kinds[life.kind] += 1
            self._lived += 1
            if self._lived == self._warm_up:
                self._first_kib = faults.memory_kib()
                self._first_descriptors = faults.descriptors()
        self._measure()

    def _measure(self) -> None:
        if self._first_kib:
            self.report.grown_kib = faults.memory_kib() - self._first_kib
            self.report.descriptors = faults.descriptors() - self._first_descriptors
        if not self._is_alone:
            return
        empty = faults.groups() - self._groups  # one that is just being removed is gone next time
        over, self._empty = sorted(empty & self._empty), empty
        ports = sorted(faults.listening() - self._ports)
        if over or ports:
            self.report.failures.append(f"at the end: groups {over}, ports {ports}")

    async def _live(self, life: Life) -> None:
        host, _ = self._host_of(life)
        acts = {"client": self._client, "pool": self._pool, "engine": self._engine}
        act = acts.get(life.kind, self._api)
        began = time.monotonic()
        async with self._disturbed(life, host):
            try:
                await act(life)
            except VcError:
                if not life.is_disturbed:
                    raise
                self.report.refused += 1
        span = time.monotonic() - began
        self._spans[life.kind] = (self._spans.get(life.kind, span) + span) / 2
        await self._check_and_delete(life)

    def _host_of(self, life: Life) -> tuple[Host, Runtime]:
        return self.hosts["libvirt" if life.kind == "libvirt" else "qemu"]

    # --- what is done in a life -------------------------------------------------------------------

    async def _api(self, life: Life) -> None:
        _, runtime = self._host_of(life)
        is_networked = life.kind == "network"
        ports = (PortMapping(guest_port=80),) if is_networked else ()
        pod = await runtime.create(
            life.name, network="full" if is_networked else "none", ports=ports
        )
        await pod.create_container(_sleeper("c0"))
        await pod.start()
        operations: list[Callable[[Pod, random.Random], Awaitable[None]]] = [
            _exec,
            _another_container,
            _paused,
            _limits,
            _read,
        ]
        for _ in range(life.dice.randint(0, 3)):
            await life.dice.choice(operations)(pod, life.dice)
        end = life.dice.random()
        if end < 0.3:
            await pod.stop(grace_s=0, force=end < 0.15)
        if 0.2 < end < 0.7:
            await pod.delete(force=True)

    async def _client(self, life: Life) -> None:
        """`vc run`, which is killed at any time, or comes to its end."""
        host, _ = self._host_of(life)
        words = ("run", "--name", life.name, "--", "sh", "-c", "echo begun; sleep 0.5")
        output = subprocess.DEVNULL
        process = host.start(*words, stdout=output, stderr=output, start_new_session=True)
        if life.victim is Victim.CLIENT:
            with contextlib.suppress(subprocess.TimeoutExpired):
                limit = life.dice.uniform(0, self._spans.get(life.kind, 8))
                await asyncio.to_thread(process.wait, limit)
            if process.poll() is None and faults.kill(process.pid):
                self.report.kills[Victim.CLIENT] += 1
                life.is_disturbed = True
        code = await asyncio.to_thread(process.wait, _LONGEST_S)
        host.started.remove(process)
        assert code == 0 or life.is_disturbed, code

    async def _pool(self, life: Life) -> None:
        host, runtime = self._host_of(life)
        try:
            await self._vc(host, "pool", "start", "--size", "1")
            await (await runtime.create(life.name, start=Start.POOL)).start()
        finally:
            await self._vc(host, "pool", "stop")

    async def _engine(self, life: Life) -> None:
        for words in self._caller.commands(life.name, life.dice):
            done = await asyncio.to_thread(self._caller.type, *words)
            if done.returncode != 0:
                assert life.is_disturbed, (words, self._caller.said())
                self.report.refused += 1
                return

    async def _vc(self, host: Host, *words: str) -> None:
        await asyncio.to_thread(host.vc, *words, check=None)

    # --- what goes wrong --------------------------------------------------------------------------

    @asynccontextmanager
    async def _disturbed(self, life: Life, host: Host) -> AsyncIterator[None]:
        tasks = []
        if life.victim not in (None, Victim.CLIENT):
            tasks.append(asyncio.create_task(self._strike(life, host)))
        with contextlib.ExitStack() as stack:
            if life.trouble is Trouble.CLOCK:
                stack.enter_context(faults.jumped(life.dice.random()))
                self.report.troubles[Trouble.CLOCK] += 1
                life.is_disturbed = True
            elif life.trouble is not None:
                tasks.append(asyncio.create_task(self._trouble(life, host, stack)))
            try:
                yield
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    async def _when(self, life: Life) -> None:
        """Waits until any instant of a life of this kind."""
        await asyncio.sleep(life.dice.uniform(0, self._spans.get(life.kind, 8)))

    async def _strike(self, life: Life, host: Host) -> None:
        assert life.victim is not None
        await self._when(life)
        if life.victim is Victim.LIBVIRTD:
            life.is_disturbed = True
            self._libvirtd.restart()
            self.report.kills[life.victim] += 1
        elif pid := faults.found(host, life.victim, life.pod):
            life.is_disturbed = True
            self.report.kills[life.victim] += faults.kill(pid)

    async def _trouble(self, life: Life, host: Host, stack: contextlib.ExitStack) -> None:
        await self._when(life)
        if life.trouble is Trouble.DISK:
            life.is_disturbed = True
            stack.enter_context(faults.filled(host.folder / faults.STORE))
            self.report.troubles[Trouble.DISK] += 1
        elif pid := faults.found(host, Victim.MACHINE, life.pod):
            life.is_disturbed = True
            self.report.troubles[Trouble.MEMORY] += faults.starve(pid)

    # --- what must be true then -------------------------------------------------------------------

    async def _check_and_delete(self, life: Life) -> None:
        host, runtime = self._host_of(life)
        if life.kind == "engine":
            await asyncio.to_thread(self._caller.remove, life.name)
            assert (await runtime.list()).pods == ()
        listing = await runtime.list(ask_guests=True)
        assert listing.problems == () or life.is_disturbed, listing.problems
        for pod in listing.pods:
            is_alive = bool(pod.pid) and Path(f"/proc/{pod.pid}").exists()
            assert is_alive or pod.state not in (State.RUNNING, State.PAUSED), pod
            await runtime.delete(pod.id, force=True)
        remains = await faults.left_at_last(host, self._dead)
        if life.kind == "pool":
            await self._vc(host, "pool", "stop")  # nothing disturbs it any more
            remains += faults.left_of_pool(self._templates)
        assert remains == [], remains
        assert (await runtime.list()).pods == ()

    async def _clean(self, life: Life) -> None:
        """After a failure: the next life is not to be blamed for it."""
        host, runtime = self._host_of(life)
        with contextlib.suppress(VcError):  # by the process whose children the helpers are
            await runtime.delete(life.name, force=True)
        for process in list(host.started):
            faults.kill(process.pid)
            process.wait()
            host.started.remove(process)
        await self._vc(host, "pod", "delete", "--force", life.name)
        for pid in host.machines():
            faults.kill(pid)


def _sleeper(name: str) -> ContainerSpec:
    process = ProcessSpec(args=("/bin/sleep", "600"))
    return ContainerSpec(id=name, rootfs=Rootfs(path=Path("/")), process=process)


async def _exec(pod: Pod, dice: random.Random) -> None:
    spec = ProcessSpec(args=("/bin/sh", "-c", f"exit {dice.randint(0, 9)}"))
    await (await pod.container("c0").exec(spec, Stdio.NULL)).wait()


async def _another_container(pod: Pod, dice: random.Random) -> None:
    name = f"c{dice.randint(1, 1 << 30)}"
    container = await pod.create_container(_sleeper(name))
    await container.start()
    if dice.random() < 0.5:
        await container.delete(force=True)


async def _paused(pod: Pod, dice: random.Random) -> None:
    await pod.pause()
    await asyncio.sleep(dice.uniform(0, 0.3))
    await pod.resume()


async def _limits(pod: Pod, dice: random.Random) -> None:
    await pod.container("c0").update(Resources(pids=dice.randint(10, 100)))


async def _read(pod: Pod, _: random.Random) -> None:
    await pod.status()
    await pod.console()
    await pod.container("c0").processes()
