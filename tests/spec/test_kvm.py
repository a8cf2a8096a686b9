"""The proof of KVM: by what happens, once, never by a node that opens."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from vc_core.spec import KvmProof, known_kvm_proof, kvm, prove_kvm


@pytest.fixture
def node(tmp_path, monkeypatch) -> Path:
    """A node that opens, whatever this host has."""
    found = tmp_path / "kvm"
    found.touch()
    monkeypatch.setattr(kvm, "NODE", found)
    return found


class Boots:
    """A guest that does as it is told, and counts."""

    def __init__(self, proof: KvmProof) -> None:
        self.proof = proof
        self.count = 0

    async def __call__(self) -> KvmProof:
        self.count += 1
        return self.proof


@pytest.mark.parametrize("works", [True, False])
async def test_an_answer_is_remembered(node, tmp_path, works):
    boots = Boots(KvmProof(works, "told"))
    first = await prove_kvm(sys.executable, tmp_path, boots)
    second = await prove_kvm(sys.executable, tmp_path, boots)
    assert (first, second) == (KvmProof(works, "told", is_new=True), KvmProof(works, "told"))
    assert boots.count == 1


async def test_another_boot_or_another_program_proves_anew(node, tmp_path, monkeypatch):
    boots = Boots(KvmProof(True, "told"))
    program = tmp_path / "program"
    program.write_text("one")
    await prove_kvm(str(program), tmp_path, boots)
    assert known_kvm_proof(str(program), tmp_path) is not None
    assert known_kvm_proof("/bin/sh", tmp_path) is None
    program.write_text("another")
    assert known_kvm_proof(str(program), tmp_path) is None
    await prove_kvm(str(program), tmp_path, boots)
    assert boots.count == 2


async def test_without_a_node_there_is_nothing_to_prove(tmp_path, monkeypatch):
    monkeypatch.setattr(kvm, "NODE", tmp_path / "none")
    boots = Boots(KvmProof(True, "told"))
    assert await prove_kvm(sys.executable, tmp_path, boots) == KvmProof(False, "there is no /dev/kvm")
    assert boots.count == 0
