"""The proof of KVM: by what happens, once, never by a node that opens."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from vc_qemu import proof
from vc_qemu.diagnosis import accelerator
from vc_qemu.errors import QemuError
from vc_qemu.options import Accelerator, QemuOptions


@pytest.fixture
def kvm(tmp_path, monkeypatch) -> Path:
    """A node that opens, whatever this host has."""
    node = tmp_path / "kvm"
    node.touch()
    monkeypatch.setattr(proof, "KVM", node)
    return node


def command(script: str) -> tuple[str, ...]:
    return (sys.executable, "-c", script)


async def test_a_guest_that_powers_off_proves_it_and_is_remembered(kvm, tmp_path):
    script = f"open({str(tmp_path / 'runs')!r}, 'a').write('x')"
    first = await proof.proven(command(script), tmp_path, 10)
    second = await proof.proven(command(script), tmp_path, 10)
    assert (first.works, first.is_new, second.works, second.is_new) == (True, True, True, False)
    assert (tmp_path / "runs").read_text() == "x"


async def test_an_abort_is_told_in_its_own_words(kvm, tmp_path):
    found = await proof.proven(command("import sys; sys.exit('error: failed to set MSR 0x10a')"), tmp_path, 10)
    assert (found.works, found.detail) == (False, "a guest on KVM failed: error: failed to set MSR 0x10a")


async def test_a_guest_that_hangs_has_a_deadline(kvm, tmp_path):
    found = await proof.proven(command("input() if False else __import__('signal').pause()"), tmp_path, 0.3)
    assert (found.works, found.detail) == (False, "a guest on KVM did not reach userspace within 0.3 s")


async def test_another_boot_or_another_qemu_proves_anew(kvm, tmp_path, monkeypatch):
    await proof.proven(command("pass"), tmp_path, 10)
    assert proof.remembered(sys.executable, tmp_path) is not None
    assert proof.remembered("/bin/sh", tmp_path) is None


async def test_without_a_node_there_is_nothing_to_prove(tmp_path, monkeypatch):
    monkeypatch.setattr(proof, "KVM", tmp_path / "none")
    found = await proof.proven(command("raise SystemExit(1)"), tmp_path, 10)
    assert (found.works, found.detail) == (False, "there is no /dev/kvm")


async def test_kvm_that_was_demanded_and_does_not_work_is_an_error(tmp_path, monkeypatch):
    from vc_core.spec import Guest

    monkeypatch.setattr(proof, "KVM", tmp_path / "none")
    guest = Guest("g", Path("/k"), Path("/i"), (), ())
    options = QemuOptions(accelerator=Accelerator.KVM, proof_dir=tmp_path)
    with pytest.raises(QemuError, match="KVM does not work here: there is no /dev/kvm; set hypervisor"):
        await accelerator(options, "/bin/sh", guest)
    assert await accelerator(QemuOptions(proof_dir=tmp_path), "/bin/sh", guest) == "tcg"
    assert await accelerator(QemuOptions(accelerator=Accelerator.TCG), "/bin/sh", guest) == "tcg"
