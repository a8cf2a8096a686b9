"""A guest on KVM: what it proves, and how it fails."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from vc_qemu import accelerator
from vc_qemu.options import QemuOptions

from vc_core.driver_kit import Accelerator, kvm_proof
from vc_core.spec import Guest, HypervisorError


@pytest.mark.parametrize(
    ("script", "works", "detail"),
    [
        ("pass", True, "a guest on KVM booted and powered off"),
        (
            "import sys; sys.exit('error: MSR 0x10a')",
            False,
            "a guest on KVM failed: error: MSR 0x10a",
        ),
        ("raise SystemExit(3)", False, "a guest on KVM failed: QEMU ended with 3"),
    ],
)
async def test_what_it_does_is_the_proof(script, works, detail):
    proof = await accelerator.boot_guest((sys.executable, "-c", script), 10)
    assert (proof.works, proof.detail) == (works, detail)


async def test_one_that_hangs_has_a_deadline():
    proof = await accelerator.boot_guest(
        (sys.executable, "-c", "__import__('signal').pause()"), 0.3
    )
    assert (proof.works, proof.detail) == (
        False,
        "a guest on KVM did not reach userspace within 0.3 s",
    )


async def test_kvm_that_was_demanded_and_does_not_work_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(kvm_proof, "NODE", tmp_path / "none")
    guest = Guest(id="g", kernel=Path("/k"), initrd=Path("/i"), parameters=(), proof_parameters=())
    options = QemuOptions(accelerator=Accelerator.KVM, proof_dir=tmp_path)
    with pytest.raises(
        HypervisorError, match="KVM does not work here: there is no /dev/kvm; set hypervisor"
    ):
        await accelerator.choose(options, "/bin/sh", guest)
    assert await accelerator.choose(QemuOptions(proof_dir=tmp_path), "/bin/sh", guest) == "tcg"
    assert (
        await accelerator.choose(QemuOptions(accelerator=Accelerator.TCG), "/bin/sh", guest)
        == "tcg"
    )
