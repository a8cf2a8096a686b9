"""A short random sequence of all calls on real machines, one of which is now and then killed."""

from __future__ import annotations

import functools
import os
import shutil
import signal
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import initialize, precondition, rule, run_state_machine_as_test

from tests.e2e.conftest import Settings, new_host
from tests.model import ALIVE, PICK, PodModel
from vc_core.engine.api.runtime import Runtime
from vc_core.spec import ContainerSpec, Mount, ProcessSpec, Resources, Rootfs

LIMITS = (Resources(), Resources(cpu_quota_us=150_000, memory_bytes=32 << 20), Resources(pids=50))


class RealPods(PodModel):
    """Against machines and the agent."""

    def __init__(self, parent: Path, hypervisor: Settings) -> None:
        self.host = new_host(Path(tempfile.mkdtemp(dir=parent, prefix="vc-")), hypervisor)
        super().__init__()

    def open(self) -> Runtime:
        return self.host.runtime()

    def spec(self, name: str, kind: int) -> ContainerSpec:
        mounts = (Mount(source=self.host.folder, destination="/mnt"),) if kind == 2 else ()
        process = ProcessSpec(args=("/bin/sleep", "600"))
        return ContainerSpec(
            id=name,
            rootfs=Rootfs(path=Path("/")),
            process=process,
            mounts=mounts,
            resources=LIMITS[kind],
        )

    @initialize()
    def begin_with_a_pod_that_runs(self) -> None:
        self.create_pod(pick=0)
        self.create_container(pick=0, which="c0", kind=2)
        self.start_pod(pick=0)

    @precondition(lambda self: self.pods)
    @rule(pick=PICK)
    def the_machine_is_killed(self, pick: int) -> None:
        pod = self.pod(pick)
        if self.pods.get(pod) in ALIVE:
            os.kill(self.loop.run_until_complete(self._pid(pod)), signal.SIGKILL)
            self._stopped(pod)

    @rule()
    def another_process_goes_on(self) -> None:
        self.loop.run_until_complete(self.runtime.close())
        self.runtime = self.open()

    async def _pid(self, pod: str) -> int:
        return (await (await self.runtime.get(pod)).status(ask_guest=False)).pid

    def teardown(self) -> None:
        super().teardown()
        assert self.host.residue() == []
        shutil.rmtree(self.host.folder)


def test_the_store_tells_the_truth_on_machines(hypervisor, tmp_path_factory):
    run_state_machine_as_test(
        functools.partial(RealPods, tmp_path_factory.getbasetemp(), hypervisor),
        settings=settings(
            max_examples=5,
            stateful_step_count=20,
            deadline=None,
            derandomize=True,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        ),
    )
