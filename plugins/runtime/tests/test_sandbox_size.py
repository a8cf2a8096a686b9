"""The size of a pod in the annotations of its sandbox."""

from __future__ import annotations

import json

import pytest
from vc_runtime import sandbox_size

from vc_core.spec import Reserved

OLD, NEW = "io.kubernetes.cri-o.PodLinuxResources", "pod-linux-resources.crio.io"
MIB = 1 << 20


def _containerd(**values: str) -> dict[str, str]:
    names = {name.replace("_", "-"): value for name, value in values.items()}
    return {f"io.kubernetes.cri.sandbox-{name}": value for name, value in names.items()}


@pytest.mark.parametrize(
    ("annotations", "size"),
    [
        ({}, Reserved()),
        (
            _containerd(cpu_period="100000", cpu_quota="50000", memory=f"{64 * MIB}"),
            Reserved(vcpus=1, memory_bytes=64 * MIB),
        ),
        (_containerd(cpu_period="50000", cpu_quota="100001"), Reserved(vcpus=3)),
        (_containerd(cpu_quota="200000"), Reserved(vcpus=2)),
        (_containerd(cpu_period="0", cpu_quota="200000"), Reserved(vcpus=2)),
        (_containerd(cpu_period="100000", cpu_quota="-1", cpu_shares="204"), Reserved()),
        (_containerd(cpu_period="100000", cpu_quota="0", memory="0"), Reserved()),
        (
            {OLD: json.dumps({"cpu_quota": 150_000, "cpu_period": 100_000, "cpu_shares": 2})},
            Reserved(vcpus=2),
        ),
        ({NEW: '{"memory_limit_in_bytes":7}', OLD: "{}"}, Reserved(memory_bytes=7)),
        ({OLD: "{}"}, Reserved()),
    ],
)
def test_limits_are_reserved(annotations, size, caplog):
    assert sandbox_size.read(annotations) == size
    assert caplog.text == ""


@pytest.mark.parametrize(
    ("annotations", "told"),
    [
        (_containerd(memory="64Mi"), "sandbox-memory has no effect: '64Mi' is not a number"),
        (_containerd(memory=""), "'' is not a number"),
        (_containerd(memory="--1"), "'--1' is not a number"),
        (_containerd(memory="²"), "'²' is not a number"),
        (_containerd(memory="9" * 10_000), "is not a number"),
        (_containerd(memory=str(1 << 63)), "is too large"),
        (_containerd(memory="-1"), "-1 bytes of memory have no effect"),
        (_containerd(cpu_period="1", cpu_quota="100"), "a period of 1 µs has no effect"),
        (_containerd(cpu_period="-5", cpu_quota="100"), "a period of -5 µs has no effect"),
        ({OLD: '{"cpu_quota":"1"}'}, f"{OLD} has no effect: Expected `int`"),
        ({OLD: "{"}, f"{OLD} has no effect"),
        ({OLD: "[]"}, f"{OLD} has no effect"),
        ({OLD: '{"x":' + "[" * 100_000}, f"{OLD} has no effect"),
        ({OLD: '{"memory_limit_in_bytes":' + "9" * 4000 + "}"}, f"{OLD} has no effect"),
        ({OLD: '{"cpu_period":' + "9" * 3000 + "}"}, f"{OLD} has no effect"),
        ({OLD: '{"\ud800":1}'}, f"{OLD} has no effect"),
    ],
)
def test_a_value_that_is_no_limit_is_told_and_left_out(annotations, told, caplog):
    assert sandbox_size.read(annotations) == Reserved()
    assert told in caplog.text
    assert len(caplog.text) < 300
