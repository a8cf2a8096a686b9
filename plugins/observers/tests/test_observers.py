"""Observers on pods of mocks: each keeps the contract, and does what it is for."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from opentelemetry import trace as otel
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client import REGISTRY
from prometheus_client.parser import text_string_to_metric_families
from vc_observers.chaos import Chaos, ChaosOptions
from vc_observers.metrics import Metrics, MetricsOptions
from vc_observers.policy import Policy, PolicyOptions
from vc_observers.trace import Trace, tracer

from vc_core.spec import (
    ContainerSpec,
    HostDevice,
    InvalidRequest,
    Mount,
    OperationError,
    ProcessSpec,
    Resources,
    Rootfs,
)
from vc_core.testing import ObserverContract, ObserverSubject, mock_config

FAIL_ALWAYS = ChaosOptions(fail={"vm_start": 1})


class TestTrace(ObserverContract):
    @pytest.fixture
    def subject(self, tmp_path):
        return ObserverSubject(Trace, tmp_path)


class TestMetrics(ObserverContract):
    @pytest.fixture
    def subject(self, tmp_path):
        return ObserverSubject(
            lambda: Metrics(MetricsOptions(str(tmp_path / "metrics.prom"))), tmp_path
        )


class TestPolicy(ObserverContract):
    @pytest.fixture
    def subject(self, tmp_path):
        return ObserverSubject(lambda: Policy(PolicyOptions()), tmp_path)


class TestChaos(ObserverContract):
    @pytest.fixture
    def subject(self, tmp_path):
        return ObserverSubject(lambda: Chaos(ChaosOptions()), tmp_path)


@pytest.fixture
def observed(tmp_path, vc_runtime):
    """Opens a runtime of mocks with an observer outermost."""

    def opened(make):
        return vc_runtime(mock_config(tmp_path, "subject"), {("observer", "subject"): make})

    return opened


def container(rootfs: Path = Path("/"), **more: object) -> ContainerSpec:
    return ContainerSpec(
        id="c", rootfs=Rootfs(path=rootfs), process=ProcessSpec(args=("sleep",)), **more
    )


# --- trace ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def spans():
    """Of this process, whose provider is there from the first span on."""
    kept = InMemorySpanExporter()
    tracer()
    otel.get_tracer_provider().add_span_processor(SimpleSpanProcessor(kept))
    return kept


async def test_each_operation_is_a_span_with_pod_plugin_and_outcome(observed, spans):
    spans.clear()
    with otel.get_tracer("a program").start_as_current_span("request") as request:
        async with observed(Trace) as runtime:
            await (await runtime.create("p")).start()
    found = {span.name: span for span in spans.get_finished_spans()}
    start = found["vm_start"]
    assert dict(start.attributes) == {"vc.pod": "p", "vc.plugin": "mock", "vc.outcome": "ok"}
    assert start.context.trace_id == request.get_span_context().trace_id, (
        "it is part of the program's own trace"
    )
    assert {"storage_create", "agent_connect"} <= set(found)


async def test_a_failure_is_the_outcome_of_its_span(observed, spans, vc_faults):
    spans.clear()
    vc_faults.operation = "vm_start"
    async with observed(Trace) as runtime:
        pod = await runtime.create("p")
        with pytest.raises(OperationError):
            await pod.start()
    (span,) = [span for span in spans.get_finished_spans() if span.name == "vm_start"]
    assert span.attributes["vc.outcome"] == "InjectedFault"
    assert span.status.status_code is otel.StatusCode.ERROR
    assert [event.name for event in span.events] == ["exception"]


def exported(**environ: str) -> subprocess.CompletedProcess[str]:
    code = (
        "from vc_observers.trace import tracer\nwith tracer().start_as_current_span('one'): "
        "print('ours')"
    )
    command = [sys.executable, "-c", code]
    return subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, **environ}, check=False
    )


def test_the_environment_says_where_spans_go():
    done = exported(OTEL_TRACES_EXPORTER="console", OTEL_SERVICE_NAME="ci")
    assert done.stdout == "ours\n", "output is the command's"
    told = json.loads(done.stderr)
    assert (told["name"], told["resource"]["attributes"]["service.name"]) == ("one", "ci")
    assert exported().stderr == exported(OTEL_TRACES_EXPORTER="none").stderr == ""
    assert (
        "names 'nowhere', which is not installed; there are: "
        in exported(OTEL_TRACES_EXPORTER="nowhere").stderr
    )


# --- metrics --------------------------------------------------------------------------------------


def samples(text: str) -> dict[tuple[str, ...], float]:
    families = text_string_to_metric_families(text)
    return {
        (one.name, *one.labels.values()): one.value for family in families for one in family.samples
    }


async def test_pods_by_state_and_durations_stand_in_a_file(observed, tmp_path):
    file = tmp_path / "vc-{pid}.prom"
    async with observed(lambda: Metrics(MetricsOptions(str(file)))) as runtime:
        pod = await runtime.create("p")
        await pod.start()
        told = samples((tmp_path / f"vc-{os.getpid()}.prom").read_text())
        assert told["vc_pods", "running"] == 1
        assert told["vc_operation_seconds_count", "vm_start", "mock"] >= 1
        await pod.pause()
        await pod.delete(force=True)
    told = samples((tmp_path / f"vc-{os.getpid()}.prom").read_text())
    assert (told["vc_pods", "running"], told["vc_pods", "paused"]) == (0, 0)


async def test_failures_are_counted_by_their_error(observed, vc_faults):
    labels = {"operation": "vm_start", "plugin": "mock", "error": "InjectedFault"}
    before = REGISTRY.get_sample_value("vc_operation_failures_total", labels) or 0
    vc_faults.operation = "vm_start"
    async with observed(lambda: Metrics(MetricsOptions())) as runtime:
        with pytest.raises(OperationError):
            await (await runtime.create("p")).start()
    assert REGISTRY.get_sample_value("vc_operation_failures_total", labels) == before + 1


async def test_the_numbers_are_served_on_loopback(observed, unused_port):
    async with observed(lambda: Metrics(MetricsOptions(port=unused_port))) as runtime:
        await (await runtime.create("p")).start()
        await (await runtime.create("q")).start()  # another board: the server is the process's

    def read() -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{unused_port}/metrics", timeout=10) as reply:
            return reply.read().decode()

    assert "vc_operation_seconds_bucket" in await asyncio.to_thread(read)


@pytest.fixture
def unused_port() -> int:
    import socket

    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def test_the_file_goes_with_its_process(tmp_path):
    code = (
        "from vc_observers.metrics import Metrics, MetricsOptions\n"
        f"from pathlib import Path; file = Path({str(tmp_path)!r}) / 'x.prom'\n"
        "Metrics(MetricsOptions(str(file))); file.touch(); print(file.exists())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "True\n"
    assert not (tmp_path / "x.prom").exists()


# --- policy ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "spec", "told"),
    [
        (PolicyOptions(rootfs=("/srv/*",)), container(), "root file system /; it allows: /srv/*"),
        (
            PolicyOptions(mounts=()),
            container(mounts=(Mount(source=Path("/etc"), destination="/x"),)),
            "mount /etc; it allows: none",
        ),
        (
            PolicyOptions(devices=("/dev/n*",)),
            container(devices=(HostDevice(path=Path("/dev/zero"), destination="/x"),)),
            "device /dev/zero",
        ),
    ],
)
async def test_what_no_rule_allows_is_refused_and_leaves_nothing(
    observed, vc_world, tmp_path, options, spec, told
):
    if spec.devices:
        (tmp_path / "x.dev").touch()
        spec = container(devices=(HostDevice(path=tmp_path / "x.dev", destination="/x"),))
        told = f"device {tmp_path}/x.dev"
    async with observed(lambda: Policy(options)) as runtime:
        pod = await runtime.create("p")
        await pod.start()
        with pytest.raises(InvalidRequest, match=told.replace("*", r"\*")):
            await (await pod.create_container(spec)).start()
        assert vc_world.machines["p"].containers == {}
        assert vc_world.prepared == set()
        await pod.delete(force=True)


async def test_a_link_does_not_lead_around_a_rule(observed, tmp_path):
    (tmp_path / "allowed").symlink_to("/etc")
    async with observed(lambda: Policy(PolicyOptions(rootfs=(f"{tmp_path}/*",)))) as runtime:
        pod = await runtime.create("p")
        await pod.start()
        with pytest.raises(InvalidRequest, match="root file system /etc"):
            await (await pod.create_container(container(tmp_path / "allowed"))).start()


async def test_a_machine_is_not_larger_than_allowed_at_first_and_later(observed):
    async with observed(lambda: Policy(PolicyOptions(memory_mib=512))) as runtime:
        with pytest.raises(InvalidRequest, match="the policy allows 512 MiB of memory, not 1024"):
            await (await runtime.create("large", memory_mib=1024)).start()
        pod = await runtime.create("p")
        await pod.start()
        with pytest.raises(InvalidRequest, match="not 768"):
            await (
                await pod.create_container(container(resources=Resources(memory_bytes=512 << 20)))
            ).start()


# --- chaos ----------------------------------------------------------------------------------------


async def test_chaos_fails_what_it_is_told_to(observed):
    async with observed(lambda: Chaos(FAIL_ALWAYS)) as runtime:
        pod = await runtime.create("p")
        with pytest.raises(OperationError, match="chaos has struck"):
            await pod.start()


async def test_the_same_seed_throws_the_same_dice():
    def strikes() -> list[bool]:
        dice = Chaos(ChaosOptions(seed=7))._dice
        return [dice.random() < 0.5 for _ in range(20)]

    assert strikes() == strikes()
    assert len(set(strikes())) == 2


async def test_a_delayed_operation_can_run_into_its_deadline(tmp_path, vc_runtime):
    from msgspec import structs

    config = mock_config(tmp_path, "subject")
    config = structs.replace(
        config, deadlines=structs.replace(config.deadlines, operations={"vm_start": 0.05})
    )
    make = {("observer", "subject"): lambda: Chaos(ChaosOptions(delay_s={"vm_start": 30}))}
    async with vc_runtime(config, make) as runtime:
        with pytest.raises(OperationError, match=r"did not answer within 0\.05 s|0\.05"):
            await (await runtime.create("p")).start()


def test_a_misspelt_operation_is_told():
    (problem,) = ChaosOptions(fail={"vm_strat": 1}).problems()
    assert problem == "fail.vm_strat: is not an operation; see docs/hooks.md"
