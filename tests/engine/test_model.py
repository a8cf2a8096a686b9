"""Random sequences of all calls on mocks, with faults at random steps and processes that die at
random moments.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule, run_state_machine_as_test

from tests.engine.specs import container
from tests.model import ALIVE, PICK, READY, STOPPED, PodModel
from vc_core.config import Config
from vc_core.defaults import Deadlines, TemplateDefaults, Use
from vc_core.driver_kit import mountinfo
from vc_core.engine.api.runtime import Runtime
from vc_core.spec import ContainerSpec, HostDevice, Mount, Resources, VmPhase
from vc_core.testing import mock_runtime
from vc_core.testing.mocks import World

DEADLINES = Deadlines(default=60, boot=60, lock=60, stop=1, view=60)
PLUGINS = Use("mock", "mock", "mock", ("mock",), ("recording", "faults"))


class MockPods(PodModel):
    """Against a world of mocks."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.world = World(self.folder / "run", max_vcpus=64)
        (self.folder / "data").mkdir()
        (self.folder / "x.dev").touch()
        super().__init__()

    def open(self) -> Runtime:
        config = Config(
            PLUGINS, template=TemplateDefaults(self.folder / "templates"), deadlines=DEADLINES
        )
        return mock_runtime(self.world, config)

    def spec(self, name: str, kind: int) -> ContainerSpec:
        if kind == 0:
            return container(name)
        if kind == 1:
            return container(
                name,
                rootfs="/etc",
                resources=Resources(cpu_quota_us=200_000, memory_bytes=64 << 20),
            )
        device, mount = (
            HostDevice(path=self.folder / "x.dev", destination="/dev/x"),
            Mount(source=self.folder / "data", destination="/data"),
        )
        return container(name, mounts=(mount,), devices=(device,))

    def is_disturbed(self) -> bool:
        was_hit = 0 <= self.world.faults.at < len(self.world.faults.calls)
        if was_hit:
            self.world.faults.at = -1
            if self.world.faults.is_deadly:
                self._next_process()
        return was_hit

    # --- what goes wrong --------------------------------------------------------------------------

    @precondition(lambda self: self.world.faults.at < 0)
    @rule(step=st.integers(1, 60), after=st.booleans(), is_deadly=st.booleans())
    def something_will_fail(self, step: int, after: bool, is_deadly: bool) -> None:
        self.world.faults.at = len(self.world.faults.calls) + step
        self.world.faults.is_after, self.world.faults.is_deadly = after, is_deadly

    @precondition(lambda self: self.pods)
    @rule(pick=PICK)
    def the_machine_dies(self, pick: int) -> None:
        pod = self.pod(pick)
        machine = self.world.machines.get(pod)
        if self.pods.get(pod) in ALIVE and machine is not None:
            machine.end("killed")
            self._stopped(pod)

    @rule()
    def the_host_reboots(self) -> None:
        self._quiet()
        for folder in self.world.run_root.glob("*/files"):
            self._unmount(folder)
        self.world.reboot()
        self.world.prepared.clear()
        self._next_process()
        for pod in self.pods:
            self.pods[pod] = STOPPED
        self.containers = dict.fromkeys(self.containers, STOPPED)

    @rule()
    def another_process_goes_on(self) -> None:
        self._quiet()
        self.loop.run_until_complete(self.runtime.close())
        self.runtime = self.open()

    # --- what must always be true -----------------------------------------------------------------

    def the_store_tells_the_truth(self) -> None:
        pending, self.world.faults.at = self.world.faults.at - len(self.world.faults.calls), -1
        super().the_store_tells_the_truth()
        self._nothing_is_left()
        if pending >= 0:
            self.world.faults.at = len(self.world.faults.calls) + pending

    def _nothing_is_left(self) -> None:
        for pod, machine in self.world.machines.items():
            is_alive = machine.phase in (VmPhase.RUNNING, VmPhase.PAUSED)
            assert not is_alive or self.pods.get(pod) in ALIVE or self._is_interrupted(pod), (
                f"{pod} has a machine"
            )
            if is_alive and pod in self.pods:
                assert set(machine.containers) <= {
                    name for owner, name in self.containers if owner == pod
                }
        for pod, state in self.pods.items():
            if state in (READY, STOPPED) and not self._is_interrupted(pod):
                assert mountinfo.below(self.world.run_root / pod) == [], f"{pod} has mounts"
        if not any(state in ALIVE for state in self.pods.values()) and not any(
            map(self._is_interrupted, self.pods)
        ):
            assert self.world.prepared == set(), "a device was not given back"

    def _is_interrupted(self, pod: str) -> bool:
        """Whether a process died in a call on this pod, or its machine did: the next call that
        changes it cleans up.
        """
        return pod in self._unsettled

    @property
    def _unsettled(self) -> set[str]:
        """Pods whose stored state is not the true one yet."""
        found = set()
        for pod in self.pods:
            machine = self.world.machines.get(pod)
            state = self.world.records[pod].get(("", "pod-state"), "")
            if machine is not None or ("running" in state or "paused" in state):
                found.add(pod)
        return found

    def teardown(self) -> None:
        self._quiet()
        super().teardown()
        assert self.world.residue() == []
        assert self.world.records == {}
        shutil.rmtree(self.folder)

    def _quiet(self) -> None:
        self.world.faults.at = -1

    def _next_process(self) -> None:
        """The one before is gone, with its locks and connections."""
        self.world.locks.clear()
        self.world.connections = 0
        self.world.faults.is_deadly = False
        self.runtime = self.open()

    @staticmethod
    def _unmount(folder: Path) -> None:
        from vc_core.engine.host import bind_mounts

        bind_mounts.remove_all(folder)


def test_the_store_tells_the_truth_on_mocks():
    run_state_machine_as_test(
        MockPods,
        settings=settings(
            max_examples=int(os.environ.get("VC_EXAMPLES", "100")),
            stateful_step_count=40,
            deadline=None,
            derandomize="VC_EXAMPLES"
            not in os.environ,  # the same ones each time, unless somebody explores
        ),
    )
