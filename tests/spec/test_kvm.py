"""The proof of KVM: by what happens, once, never by a node that opens."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from vc_core.driver_kit import KvmProof, known_kvm_proof, kvm_proof, prove_kvm
from vc_core.spec import InvalidRequest


@pytest.fixture
def node(tmp_path, monkeypatch) -> Path:
    """A node that opens, whatever this host has."""
    found = tmp_path / "kvm"
    found.touch()
    monkeypatch.setattr(kvm_proof, "NODE", found)
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
    monkeypatch.setattr(kvm_proof, "NODE", tmp_path / "none")
    boots = Boots(KvmProof(True, "told"))
    assert await prove_kvm(sys.executable, tmp_path, boots) == KvmProof(
        False, "there is no /dev/kvm"
    )
    assert boots.count == 0


@pytest.mark.parametrize("kind", ["link", "theirs", "open"])
async def test_a_proof_is_kept_in_a_folder_of_this_users_alone(node, tmp_path, kind):
    """Another user makes the folder in /tmp first: nothing of it is believed, followed
    or written.
    """
    place, target = tmp_path / "place", tmp_path / "target"
    target.mkdir()
    if kind == "link":
        place.symlink_to(target)
    else:
        place.mkdir()
        place.chmod(0o777 if kind == "open" else 0o700)
    if kind == "theirs":
        if os.geteuid() != 0:
            pytest.skip("only root can make folders of others")
        os.chown(place, 65534, 65534)
    boots = Boots(KvmProof(True, "told"))
    with pytest.raises(
        InvalidRequest,
        match=r"place.*; .*set proof_dir of the hypervisor to a directory that you own",
    ):
        await prove_kvm(sys.executable, place, boots)
    assert (boots.count, list(target.iterdir())) == (0, [])


async def test_a_link_in_the_place_of_a_proof_is_replaced_and_not_followed(node, tmp_path):
    folder, victim = tmp_path / "proofs", tmp_path / "victim"
    victim.write_text("precious")
    await prove_kvm(sys.executable, folder, Boots(KvmProof(True, "told")))
    (file,) = folder.iterdir()
    assert file.stat().st_mode & 0o777 == 0o600
    told = file.read_text()
    file.unlink()
    (folder / "elsewhere").write_text(told)
    file.symlink_to(folder / "elsewhere")
    assert known_kvm_proof(sys.executable, folder) is None
    file.unlink()
    file.symlink_to(victim)
    assert (await prove_kvm(sys.executable, folder, Boots(KvmProof(False, "now")))).detail == "now"
    assert (victim.read_text(), file.is_symlink()) == ("precious", False)


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"key": 1, "proof": 2}', "\xff", '{"key": null, "proof": {"works": 1}}'],
)
async def test_a_damaged_proof_is_replaced(node, tmp_path, text):
    await prove_kvm(sys.executable, tmp_path / "proofs", Boots(KvmProof(True, "told")))
    (file,) = (tmp_path / "proofs").iterdir()
    file.write_text(text, encoding="latin-1")
    assert (
        await prove_kvm(sys.executable, tmp_path / "proofs", Boots(KvmProof(True, "anew")))
    ).detail == "anew"
