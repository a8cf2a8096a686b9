"""What is concluded from the facts about a process. Those of AppArmor and SELinux are as their
kernels report them; the e2e tests read a real libvirtd's.
"""

from __future__ import annotations

import dataclasses
import os
from xml.etree import ElementTree as ET

import pytest
from vc_libvirt import confinement
from vc_libvirt.confinement import Facts, Layer

_NAME = "libvirt-7c0b1d9e-0000-4000-8000-000000000001"
_CONTEXT = "system_u:system_r:svirt_t:s0:c87,c520"


def _domain(model: str, label: str) -> ET.Element:
    return ET.fromstring(
        "<domain><seclabel type='static' model='dac'><label>+107:+107</label></seclabel>"
        f"<seclabel type='dynamic' model='{model}'><label>{label}</label></seclabel>"
        "<memtune><hard_limit unit='KiB'>1</hard_limit></memtune></domain>"
    )


def _facts() -> Facts:
    """All layers."""
    return Facts(
        domain=_domain("apparmor", _NAME),
        status={
            "Uid": "107\t107\t107\t107",
            "CapEff": "0000000000000000",
            "NoNewPrivs": "1",
            "Seccomp": "2",
        },
        label=f"{_NAME} (enforce)",
        groups="0::/machine.slice/machine-qemu\\x2d1\\x2dvc.scope/libvirt/emulator\n",
        mounts=b"60 59 0:50 / /dev rw,nosuid - tmpfs devfs rw,size=64k\n",
        shared=(),
    )


def test_all_layers_are_named_where_all_are_there():
    found = confinement.of_facts(_facts())
    assert found.missing == ()
    assert found.layers == tuple(layer.value for layer in Layer)


@pytest.mark.parametrize(
    ("change", "layer", "reason"),
    [
        ({"label": ""}, Layer.MODULE, "the kernel reports none"),
        ({"label": f"{_NAME} (complain)"}, Layer.MODULE, "refuses nothing"),
        ({"label": "unconfined"}, Layer.MODULE, "reports unconfined"),
        ({"domain": _domain("none", "")}, Layer.MODULE, "no label"),
        (
            {"domain": _domain("selinux", _CONTEXT), "label": _CONTEXT, "is_permissive": True},
            Layer.MODULE,
            "refuses nothing",
        ),
        ({"mounts": b"60 59 0:5 / /dev rw - devtmpfs udev rw\n"}, Layer.PRIVATE_DEV, "the host's"),
        ({"groups": "0::/system.slice/libvirtd.service\n"}, Layer.GROUP, "libvirtd's"),
        ({"shared": ("net",)}, Layer.NAMESPACES, "the host's: net"),
    ],
)
def test_what_is_missing_is_told_with_its_reason(change, layer, reason):
    lacks = confinement.lacks(dataclasses.replace(_facts(), **change))
    assert list(lacks) in ([layer], [layer, Layer.LIMITS])
    assert reason in lacks[layer]


@pytest.mark.parametrize(
    ("field", "value", "layer"),
    [
        ("Uid", "0 0 0 0", Layer.USER),
        ("CapEff", "000001fffeffffff", Layer.CAPABILITIES),
        ("NoNewPrivs", "0", Layer.CAPABILITIES),
        ("Seccomp", "0", Layer.SANDBOX),
    ],
)
def test_each_fact_of_the_process_counts(field, value, layer):
    facts = _facts()
    changed = dataclasses.replace(facts, status={**facts.status, field: value})
    assert list(confinement.lacks(changed)) == [layer]


def test_selinux_confines_by_its_context():
    changed = dataclasses.replace(_facts(), domain=_domain("selinux", _CONTEXT), label=_CONTEXT)
    assert Layer.MODULE not in confinement.lacks(changed)


def test_this_process_is_read_from_the_kernel():
    found = confinement.of_process(os.getpid(), _domain("none", ""))
    assert "namespaces" not in found.layers
    assert any("QEMU is in the host's: pid, net, ipc" in lack for lack in found.missing)


def test_a_process_that_has_ended_has_no_confinement():
    child = os.posix_spawn("/bin/true", ["true"], {})
    os.waitpid(child, 0)
    found = confinement.of_process(child, _domain("none", ""))
    assert (found.layers, found.missing) == ((), ())
