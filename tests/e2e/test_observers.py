"""Observers on real pods, typed as a user types them."""

from __future__ import annotations

import json
import subprocess

import pytest
from prometheus_client.parser import text_string_to_metric_families

pytestmark = pytest.mark.only("qemu")


def observe(host, *names: str) -> None:
    host.configure("use", observers=list(names))


def spans(text: str) -> list[dict]:
    """Of the console exporter, which writes one JSON object after the other."""
    decoder, found, at = json.JSONDecoder(), [], 0
    while at < len(text.rstrip()):
        span, at = decoder.raw_decode(text, at)
        found.append(span)
        at += len(text[at:]) - len(text[at:].lstrip())
    return found


def test_a_pod_is_traced_from_its_making_to_its_end(host):
    observe(host, "trace")
    host.environment["OTEL_TRACES_EXPORTER"] = "console"
    done = host.vc("run", "--", "echo", "out")
    assert done.stdout == b"out\n"
    found = {span["name"]: span["attributes"] for span in spans(done.stderr.decode())}
    assert found["vm_start"]["vc.plugin"] == host.hypervisor
    assert found["agent_create_container"]["vc.plugin"] == "grpc"
    assert found["storage_delete"]["vc.plugin"] == "fs"
    odd = {name: one["vc.outcome"] for name, one in found.items() if one["vc.outcome"] != "ok"}
    assert odd in ({}, {"vm_wait": "cancelled"}), "the agent answers before the machine ends"
    assert found["agent_create_container"]["vc.pod"] == found["vm_destroy"]["vc.pod"] != ""


def test_the_metrics_of_a_pod_that_runs_stand_in_a_file(host):
    observe(host, "metrics")
    host.configure("observer.metrics", file=f"{host.folder}/vc-{{pid}}.prom")
    with host.start(
        "run", "--", "sh", "-c", "echo up; cat", stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as running:
        assert running.stdout.readline() == b"up\n"
        (file,) = host.folder.glob("vc-*.prom")
        families = {one.name: one for one in text_string_to_metric_families(file.read_text())}
        told = {one.labels["state"]: one.value for one in families["vc_pods"].samples}
        assert told["running"] == 1
        seconds = {one.labels["operation"]: one for one in families["vc_operation_seconds"].samples}
        assert seconds["vm_start"].labels["plugin"] == host.hypervisor
        running.stdin.close()
        assert running.wait(60) == 0
    assert list(host.folder.glob("vc-*.prom")) == []


def test_a_policy_refuses_in_a_line_and_nothing_is_left(host, busybox):
    observe(host, "policy")
    host.configure("observer.policy", rootfs=[f"{busybox}*"], mounts=[], memory_mib=256)
    assert host.vc("run", "--rootfs", str(busybox), "--", "echo", "in").stdout == b"in\n"
    done = host.vc("run", "--rootfs", "/", "--", "true", check=125)
    assert done.stderr.decode().startswith(
        "vc: error: the policy does not allow the root file system /; it allows: "
    )
    assert done.stderr.count(b"\n") == 1
    mount = ["--rootfs", str(busybox), "--mount", "/etc:/x:ro"]
    assert (
        b"does not allow the mount /etc" in host.vc("run", *mount, "--", "true", check=125).stderr
    )
    large = host.vc("run", "--memory", "64m", "--rootfs", str(busybox), "--", "true", check=125)
    assert b"allows 256 MiB of memory, not 320" in large.stderr


def test_chaos_strikes_a_real_pod_which_leaves_nothing(host):
    observe(host, "chaos")
    for name in ("agent_create_container", "vm_open_channel"):
        host.configure("observer.chaos", fail={name: 1.0})
        assert b"chaos has struck" in host.vc("run", "--", "true", check=125).stderr
        assert host.residue() == []
    host.configure("observer.chaos", fail={}, delay_s={"agent_create_container": 0.2})
    host.vc("run", "--", "true")
